"""Trains the two small models of this folder and writes the reference ids. See README.md."""
import gzip, json, os, random, sys, base64, subprocess, tempfile
import sentencepiece as spm

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")

SEEDS = """A stylish woman walks down a Tokyo street filled with warm glowing neon and animated city signage.
Several giant woolly mammoths approach, treading through a snowy meadow; their long woolly fur lightly blows in the wind.
Drone view of waves crashing against the rugged cliffs along Big Sur's Garay Point beach at 16 fps, 480x832.
a close-up of a blue-eyed kitten, sharp focus, 35mm film, f/1.8, ISO 400, bokeh
"The camera follows behind a white vintage SUV", he said -- and it sped up (steep dirt road, pine trees)...
一只戴着墨镜的柴犬在海边冲浪，阳光明媚，电影质感，慢动作。
镜头缓缓推进，雨后的街道上霓虹灯倒映在水面，行人撑着红色雨伞走过。
水墨风格的群山云雾缭绕，一叶小舟缓缓划过江面，远处有飞鸟。
繁體中文：夜市裡的攤販正在炒麵，蒸氣升起，燈籠搖曳。
東京の夜景を背景に、着物を着た女性が桜の花びらの中を歩いている。
ロボットがキッチンでコーヒーをいれる、カメラはゆっくり回り込む。ﾊﾝｶｸｶﾀｶﾅ
눈 덮인 산길을 달리는 빨간 기차, 드론으로 촬영한 영화 같은 장면.
Une rivière traverse la forêt d'automne, où les feuilles dorées tombent doucement ; l’œuvre d’un maître.
Ein großer Bär fängt Lachse im Fluß, während über den Hügeln die Sonne aufgeht – 4K, „natürlich“.
El niño corrió por la montaña; ¿qué pasó después? ¡Increíble! Año 2024, 50 % más.
Рыжий кот сидит на подоконнике и смотрит на падающий снег за окном.
قطة صغيرة تجلس على النافذة وتنظر إلى المطر.
एक बच्चा पतंग उड़ा रहा है और आसमान में बादल हैं।
แมวสีส้มกำลังนอนอยู่บนหลังคาบ้าน
Một con mèo nhỏ đang ngồi trên cửa sổ nhìn mưa rơi.
🐱🐶 playing with a 🎾 in the park 🌳✨ 👩‍👩‍👧‍👦 family, 👍🏽 ❤️ ☺️ 🇯🇵🇩🇪 1️⃣
math: ∑ x² ≤ ½·π ≈ 1.57, ℃ ㎏ № ™ ① Ⅳ ﬁne ﬂow ﬀ ﬃ ſt
Ｆｕｌｌ　ｗｉｄｔｈ　ｔｅｘｔ　１２３　！？（ＡＢＣ）
e\u0301a\u0300o\u0308n\u0303 versus éàöñ, A\u030angstr\u00f6m \u212b \u1e9b\u0323 \u0041\u0328\u0301
ㄱㅏ \u1112\u1161\u11ab\u1100\u1173\u11af 한글 \u3131\u314f
zero\u200bwidth\u200cjoin\u200der \ufeffbom soft\u00adhyphen nb\u00a0space thin\u2009space em\u2003space ideo\u3000space
tabs\tand\x0bvertical\x0cfeed\rreturn\x1cfs\x1dgs\x1eunit\x1f end\x7f
control\x01\x02\x03\x07\x08\x0e bell\x1b[31mred\x1b[0m\x80\x85\x9f
<extra_id_0> text <extra_id_1><extra_id_2> and <extra_id_3> </s> <pad> <unk> <0x41> ▁ ▁▁ a▁b
  leading and   trailing   spaces   
𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒻𝒶𝓃𝒸𝓎 𝟙𝟚𝟛 𠮷野家 𐍈 \U0001f9d1\U0001f3ff\u200d\U0001f680 \U000e0041
\ufdfa \ufdfb ﷼ ﮭ ﻻ ﺎ שּׁ ﬥ \u0340\u0341\u0343\u0344 \u0374
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
……———“”‘’「」『』【】《》〈〉、。·•◆★☆→←↑↓∞§¶†‡""".split("\n")


def seeds():
    """The sentences above with their escapes."""
    import re
    out = []
    for s in SEEDS:
        s = re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), s)
        s = re.sub(r"\\U([0-9a-f]{8})", lambda m: chr(int(m[1], 16)), s)
        s = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), s)
        out.append(s.replace("\\t", "\t").replace("\\r", "\r"))
    return out


def corpus():
    """About 400 lines of bytes: the sentences, the repository's prose, and mutations of both down to random bytes."""
    rng = random.Random(20)
    lines = [s.encode() for s in seeds()]
    prose = []
    for name in ("README.md", "ARCHITECTURE.md", "docs/model/tinyworld.md", "LICENSE"):
        path = os.path.join(ROOT, name)
        if os.path.exists(path):
            prose += [l for l in open(path, encoding="utf-8").read().split("\n") if 20 < len(l) < 200]
    rng.shuffle(prose)
    lines += [l.encode() for l in prose[:60]]
    all_chars = "".join(seeds())
    for _ in range(80):  # pieces of sentences put together
        lines.append("".join(s[a:a + rng.randint(1, 20)] for s in rng.sample(seeds(), 3) for a in [rng.randrange(len(s))]).encode())
    for _ in range(60):  # characters in any order
        lines.append("".join(rng.choice(all_chars) for _ in range(rng.randint(1, 40))).encode())
    for _ in range(60):  # random code points
        cps = [rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x300, 0x3000), rng.randrange(0x3000, 0xd800), rng.randrange(0xe000, 0x10000),
               rng.randrange(0x10000, 0x30000)]) for _ in range(rng.randint(1, 24))]
        lines.append("".join(map(chr, cps)).encode())
    for _ in range(40):  # bytes of valid text lost or replaced
        b = bytearray(rng.choice(seeds()).encode())
        for _ in range(rng.randint(1, 6)):
            i = rng.randrange(len(b))
            if rng.random() < .5:
                b[i] = rng.randrange(256)
            elif len(b) > 1:
                del b[i]
        lines.append(bytes(b))
    for _ in range(30):
        lines.append(bytes(rng.randrange(256) for _ in range(rng.randint(1, 30))))
    lines += [b"", b" ", b"   ", "\u3000".encode(), b"a", "中".encode(), "▁".encode(), b"\xff", b"\xe4\xb8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
              b"\xc0\x80", b"\x00", b"a\x00b", b"\xef\xbf\xbd", b"<extra_id_0>", b" <extra_id_0> ", b"x<extra_id_0>y"]
    return lines


def quote(b):
    """A Go string literal: valid UTF-8 that prints stays readable."""
    out = []
    i = 0
    while i < len(b):
        for n in (1, 2, 3, 4):
            try:
                c = b[i:i + n].decode()
            except UnicodeDecodeError:
                continue
            if len(c) == 1:
                break
        else:
            c = None
        if c is None or not c.isprintable() or c == "\ufffd":
            n = n if c is not None else 1
            out += ["\\x%02x" % x for x in b[i:i + n]]
        else:
            out.append("\\" + c if c in '"\\' else c)
        i += n
    return '"' + "".join(out) + '"'


def hugging_face(model, path):
    """tokenizer.json as transformers' converter for T5 writes it."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto()
    m.ParseFromString(open(model, "rb").read())
    vocab = [[p.piece, p.score] for p in m.pieces]
    added = [{"id": i, "content": p.piece, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, p in enumerate(m.pieces) if p.type in (2, 3, 4)]
    t = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
         "normalizer": {"type": "Sequence", "normalizers": [
             {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(m.normalizer_spec.precompiled_charsmap).decode()},
             {"type": "Strip", "strip_left": False, "strip_right": True},
             {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]},
         "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
         "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
         "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
         "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": bool(m.trainer_spec.byte_fallback)}}
    json.dump(t, open(path, "w"), ensure_ascii=False)


def train(prefix, text, **options):
    spm.SentencePieceTrainer.train(input=text, model_prefix=prefix, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
                                   num_threads=1, minloglevel=2, **options)


def main():
    tmp = tempfile.mkdtemp()
    text = os.path.join(tmp, "train.txt")
    with open(text, "w") as f:
        for s in seeds() * 3:
            f.write(s.replace("\r", " ") + "\n")
        for path in sys.argv[1:]:
            for line in open(path, encoding="utf-8", errors="ignore"):
                if 20 < len(line) < 1000:
                    f.write(line)
    wan, plain = os.path.join(tmp, "wan"), os.path.join(tmp, "plain")
    symbols = ["<extra_id_%d>" % i for i in range(3)]
    train(wan, text, vocab_size=2600, byte_fallback=True, normalization_rule_name="nmt_nfkc", character_coverage=.9995, user_defined_symbols=symbols)
    train(plain, text, vocab_size=700, normalization_rule_name="identity", character_coverage=.98, remove_extra_whitespaces=False,
          treat_whitespace_as_suffix=True, user_defined_symbols=symbols[:1])
    hugging_face(wan + ".model", os.path.join(tmp, "tokenizer.json"))
    lines = corpus()
    ids = [[m.EncodeAsIds(l) for l in lines] for m in (spm.SentencePieceProcessor(model_file=p + ".model") for p in (wan, plain))]
    valid = []
    for l in lines:
        try:
            valid.append(l.decode())
        except UnicodeDecodeError:
            valid.append(None)
    json.dump(valid, open(os.path.join(tmp, "lines.json"), "w"))
    program = ("const {Tokenizer}=require(process.env.TOKENIZERS);const fs=require('fs');const t=Tokenizer.fromFile(process.argv[1]);"
               "(async()=>{const o=[];for(const l of JSON.parse(fs.readFileSync(process.argv[2])))o.push(l===null?null:(await t.encode(l,null,{addSpecialTokens:false})).getIds());"
               "console.log(JSON.stringify(o))})()")
    fast = json.loads(subprocess.check_output(["node", "-e", program, os.path.join(tmp, "tokenizer.json"), os.path.join(tmp, "lines.json")]))
    row = lambda x: "-" if x is None else " ".join(map(str, x))
    with open(os.path.join(HERE, "corpus.tsv"), "w") as f:
        for l, a, b, c in zip(lines, ids[0], ids[1], fast):
            f.write("\t".join([quote(l), row(a), row(b), row(c)]) + "\n")
    slim = json.load(open(os.path.join(tmp, "tokenizer.json")))
    slim["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "@charsmap"
    json.dump(slim, open(os.path.join(tmp, "tokenizer.json"), "w"), ensure_ascii=False)
    for src, dst in ((wan + ".model", "wan.model.gz"), (plain + ".model", "plain.model.gz"), (os.path.join(tmp, "tokenizer.json"), "tokenizer.json.gz")):
        with open(os.path.join(HERE, dst), "wb") as f:
            f.write(gzip.compress(open(src, "rb").read(), 9, mtime=0))
    print(len(lines), "lines", tmp)


main()
