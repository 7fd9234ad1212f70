// The page of a longtake server: shows a session's frames, sends keys and orders, and says what it costs.
'use strict';

const $ = id => document.getElementById(id);
const text = (id, s) => { if ($(id).textContent !== s) $(id).textContent = s; };
const json = (method, body) => ({ method, headers: { 'Content-Type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body) });
const skies = ['sunny', 'sunset', 'night', 'cloudy', 'dawn', 'alien'];
const traceLength = 120;

const state = {
  session: null, model: null, socket: null, tries: 0, nextId: 1, waiting: new Map(),
  held: new Set(), trace: [], views: [newView(0), newView(1)], leaving: false, shown: 0, lag: 0,
};
// What tests and curious people look at.
window.longtake = state;

function newView(i) {
  return { canvas: $('screen' + i), draw: $('screen' + i).getContext('2d'), map: null, maps: 0, busy: false, next: null, shown: 0, times: [] };
}

function say(message, bad) {
  text('status', message);
  $('status').classList.toggle('bad', !!bad);
}

// ---- requests

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.status === 401) { await login(); return ask(path, options); }
  const body = answer.headers.get('Content-Type') === 'application/json' ? await answer.json() : await answer.text();
  if (!answer.ok) {
    const e = new Error(body.error ? body.error.message : answer.statusText);
    e.status = answer.status;
    e.retry = body.retry_after;
    throw e;
  }
  return body;
}

async function tryToken(token) {
  const answer = await fetch('/v1/login', { method: 'POST', headers: token ? { Authorization: 'Bearer ' + token } : {} });
  return answer.ok;
}

async function login() {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (given) {
    history.replaceState(null, '', location.pathname);
    if (await tryToken(given)) return;
  }
  $('gate').showModal();
  for (;;) {
    await new Promise(done => $('login').addEventListener('submit', e => { e.preventDefault(); done(); }, { once: true }));
    if (await tryToken($('token').value)) break;
    text('denied', 'That is not the token.');
  }
  $('token').value = '';
  $('gate').close();
}
setInterval(() => { if (document.cookie !== null && state.session) fetch('/v1/login', { method: 'POST' }); }, 20 * 60 * 1000);

// ---- the session and its socket

async function begin(request) {
  try {
    state.session = await ask('/v1/sessions', json('POST', request));
  } catch (e) {
    if (!e.retry) { say(e.message, true); return; }
    say(`${e.message}; trying again in ${Math.ceil(e.retry)} s`, true);
    setTimeout(() => begin(request), 1000 * e.retry);
    return;
  }
  state.tries = 0;
  connect();
}

// callVideo asks for video by WebRTC; frames' headers still come by the socket. What fails falls back to pictures by the socket.
async function callVideo() {
  const pc = new RTCPeerConnection();
  state.peer = pc;
  const fallBack = why => {
    if (state.peer !== pc) return;
    hangUp();
    $('format').value = 'jpeg';
    connect(`no WebRTC (${why}), pictures come by the WebSocket`);
  };
  const timer = setTimeout(() => fallBack('no connection within 5 s'), 5000);
  pc.onconnectionstatechange = () => {
    if (pc.connectionState === 'failed' || pc.connectionState === 'disconnected') fallBack('the connection is lost');
  };
  pc.ontrack = e => {
    $('video').srcObject = new MediaStream([e.track]);
    $('video').onloadeddata = () => { clearTimeout(timer); $('video').hidden = false; $('screen0').hidden = true; };
    $('video').play().catch(() => {});
  };
  try {
    pc.addTransceiver('video', { direction: 'recvonly' });
    await pc.setLocalDescription(await pc.createOffer());
    await new Promise(done => {
      if (pc.iceGatheringState === 'complete') done();
      pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done();
      setTimeout(done, 2000);
    });
    const { type, sdp } = pc.localDescription;
    await pc.setRemoteDescription(await ask(`/v1/sessions/${state.session.id}/webrtc`, json('POST', { type, sdp })));
  } catch (e) {
    clearTimeout(timer);
    fallBack(e.message);
  }
}

function hangUp() {
  state.peer?.close();
  state.peer = null;
  $('video').hidden = true;
  $('video').srcObject = null;
  $('screen0').hidden = false;
}

function connect(note) {
  state.socket?.close();
  hangUp();
  const video = $('format').value === 'webrtc';
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const socket = new WebSocket(`${scheme}://${location.host}/v1/sessions/${state.session.id}/stream?protocol_version=1&format=${video ? 'none' : $('format').value}`);
  socket.binaryType = 'arraybuffer';
  state.socket = socket;
  state.note = typeof note === 'string' ? note : 'running';
  socket.onopen = () => { state.tries = 0; if (video) callVideo(); };
  socket.onmessage = e => {
    if (socket !== state.socket) return;
    if (typeof e.data === 'string') notice(JSON.parse(e.data)); else frame(e.data);
  };
  socket.onclose = async e => {
    if (socket !== state.socket || state.leaving) return;
    state.held.clear();
    say(e.reason ? 'ended: ' + e.reason : 'the connection is lost', true);
    const wait = Math.min(8000, 500 * 2 ** state.tries++);
    await new Promise(done => setTimeout(done, wait));
    if (socket !== state.socket || state.leaving) return;
    try {
      await ask('/v1/sessions/' + state.session.id);
      connect(); // the session waits for us
    } catch (error) {
      if (error.status === 404) say('the session is over; Restart begins another', true); else connect();
    }
  };
}

// order sends a control; the promise ends with its receipt.
function order(control) {
  if (state.socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error('not connected'));
  control.id = state.nextId++;
  control.ts = performance.now();
  state.socket.send(JSON.stringify(control));
  return new Promise((done, refuse) => {
    state.waiting.set(control.id, { done, refuse });
    if (state.waiting.size > 200) state.waiting.delete(state.waiting.keys().next().value);
  });
}

const tell = control => order(control).catch(e => { say(e.message, true); show(state.session); });

function notice(n) {
  const owed = state.waiting.get(n.id);
  switch (n.type) {
    case 'hello':
      state.model = n.model;
      for (const b of document.querySelectorAll('#pad button')) b.hidden = !n.model.keys?.[b.dataset.key];
      settle(n.model);
      show(n.session);
      if (n.prompt !== undefined) setPrompt(n.prompt);
      say(state.note);
      if ($('overlay').value) tell({ type: 'map', map: true });
      break;
    case 'applied':
      state.waiting.delete(n.id);
      owed?.done(n);
      break;
    case 'error':
      state.waiting.delete(n.id);
      if (owed) owed.refuse(new Error(n.error.message)); else say(n.error.message, true);
      break;
    case 'state':
      show(n.session);
      if (n.prompt !== undefined && document.activeElement !== $('prompt')) setPrompt(n.prompt);
      break;
    case 'map':
      state.views[n.map.view].map = n.map;
      state.views[n.map.view].maps++;
      drawMaps();
      break;
    case 'end':
      say('ended: ' + n.reason, true);
      break;
  }
}

// ---- frames

function frame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const view = state.views[head.view];
  head.echo = head.echo || view.next?.head.echo; // of a frame that is skipped
  view.next = { head, image: new Uint8Array(buffer, 4 + length) };
  if (!view.busy) paint(view);
}

// paint draws the newest frame; those that came while it was busy are skipped.
async function paint(view) {
  view.busy = true;
  while (view.next) {
    const { head, image } = view.next;
    view.next = null;
    try {
      if (head.format === 'none') { measure(view, head); continue; }
      if (view.canvas.width !== head.width || view.canvas.height !== head.height) {
        view.canvas.width = head.width;
        view.canvas.height = head.height;
      }
      if (head.format === 'raw') {
        const rgba = view.draw.createImageData(head.width, head.height);
        for (let i = 0, o = 0; i < image.length; i += 3, o += 4) {
          rgba.data[o] = image[i]; rgba.data[o + 1] = image[i + 1]; rgba.data[o + 2] = image[i + 2]; rgba.data[o + 3] = 255;
        }
        view.draw.putImageData(rgba, 0, 0);
      } else {
        const bitmap = await createImageBitmap(new Blob([image], { type: 'image/' + head.format }));
        view.draw.drawImage(bitmap, 0, 0);
        bitmap.close();
      }
      measure(view, head);
    } catch (e) {
      say('a frame could not be drawn: ' + e.message, true);
    }
  }
  view.busy = false;
}

const size = n => n >= 1 << 20 ? (n / (1 << 20)).toFixed(1) + ' MiB' : Math.round(n / 1024) + ' KiB';

function measure(view, head) {
  const now = performance.now();
  view.shown++;
  view.last = head;
  view.times.push(now);
  if (view.times.length > 30) view.times.shift();
  const seen = view.times.length > 1 ? 1000 * (view.times.length - 1) / (now - view.times[0]) : 0;
  if (head.gen_ms === 0) return; // a start frame
  text('name' + head.view, head.policy);
  text('facts' + head.view, `${(head.fps || seen).toFixed(1)} fps · ${head.gen_ms.toFixed(0)} ms · ${size(head.cache_bytes)} · ${Math.round(head.cache_tokens)} tokens` +
    (head.psnr ? ` · ${head.psnr >= 99 ? 'equal' : head.psnr.toFixed(1) + ' dB'}` : ''));
  if (head.view !== 0) return;
  state.shown++;
  if (head.echo) state.lag = state.lag ? 0.7 * state.lag + 0.3 * (now - head.echo) : now - head.echo;
  state.trace.push([head.denoise_ms, head.commit_ms, head.decode_ms]);
  if (state.trace.length > traceLength) state.trace.shift();
  if (state.shown % 4) return;
  text('fps', seen.toFixed(1));
  text('gen', head.gen_ms.toFixed(0));
  text('cache', size(head.cache_bytes));
  text('lag', state.lag ? state.lag.toFixed(0) : '–');
  text('late', `${head.late} late, ${head.dropped || 0} dropped, chunk ${head.chunk}`);
  plot();
  heads();
}

function plot() {
  const c = $('trace'), d = c.getContext('2d'), style = getComputedStyle(document.documentElement);
  const colours = ['--blue', '--amber', '--green'].map(n => style.getPropertyValue(n));
  const due = 1000 / (state.session.fps || 15); // one long chunk may not flatten all others
  const top = Math.min(3 * due, Math.max(due, ...state.trace.map(t => t[0] + t[1] + t[2]))) * 1.1;
  d.clearRect(0, 0, c.width, c.height);
  const w = c.width / traceLength;
  state.trace.forEach((t, i) => {
    let y = c.height;
    t.forEach((ms, s) => {
      const h = ms / top * c.height;
      d.fillStyle = colours[s];
      d.fillRect(i * w, y - h, Math.max(1, w - 1), h);
      y -= h;
    });
  });
  d.fillStyle = style.getPropertyValue('--soft');
  d.fillRect(0, c.height - 1000 / state.session.fps / top * c.height, c.width, 1);
}

// heads draws how many tokens each head of each layer keeps, of the view that compresses.
function heads() {
  const head = state.views.map(v => v.last).find((h, i) => h && h.heads && (i === 0 || !$('second').hidden));
  $('kept').hidden = !head;
  if (!head) return;
  const columns = head.heads_per_layer || head.heads.length, rows = Math.ceil(head.heads.length / columns);
  const c = $('heads'), d = c.getContext('2d'), most = Math.max(1, ...head.heads);
  c.width = columns; c.height = rows;
  head.heads.forEach((n, i) => {
    d.fillStyle = `hsl(${210 - 170 * n / most} 80% ${20 + 45 * n / most}%)`;
    d.fillRect(i % columns, Math.floor(i / columns), 1, 1);
  });
  text('merged', `${head.policy}: at most ${most} tokens a head; ${head.merged || 0} merged, ${head.evicted || 0} forgotten so far`);
}

// ---- the map

// heat is a colour for 0 to 1 that lets the picture through where little is.
function heat(x) {
  const stops = [[59, 29, 110], [214, 65, 123], [255, 226, 122]], at = Math.min(1.999, 2 * x), i = Math.floor(at), f = at - i;
  const c = stops[i].map((v, j) => Math.round(v + f * (stops[i + 1][j] - v)));
  return `rgb(${c.join(' ')} / ${(0.1 + 0.55 * x).toFixed(2)})`;
}

// drawMaps draws the newest maps; both views have one scale, so that they can be compared.
function drawMaps() {
  const how = $('overlay').value, maps = state.views.map((v, i) => i === 0 || !$('second').hidden ? v.map : null);
  const most = f => Math.max(1e-9, ...maps.flatMap(m => m ? f(m) : []));
  const keys = most(m => m.kept), merged = most(m => m.merged), looks = most(m => m.attended);
  $('key').hidden = !how || !maps[0];
  maps.forEach((m, i) => {
    const c = $('map' + i);
    c.hidden = !how || !m;
    if (!c.hidden) drawMap(c, m, how, { keys, merged, looks });
  });
  const sum = v => Math.round(v.reduce((a, b) => a + b, 0));
  if (maps[0]) text('counts', maps.filter(m => m).map(m => `${m.policy}: ${sum(m.kept)} kept, ${sum(m.merged)} merged`).join(' · '));
}

function drawMap(c, m, how, scale) {
  const d = c.getContext('2d'), w = c.width / m.columns, h = c.height / m.rows, r = Math.min(w, h) * 0.26;
  d.clearRect(0, 0, c.width, c.height);
  for (let i = 0; i < m.kept.length; i++) {
    const x = i % m.columns * w, y = Math.floor(i / m.columns) * h;
    if (how !== 'tokens') {
      d.fillStyle = heat(m.attended[i] / scale.looks);
      d.fillRect(x + 0.5, y + 0.5, w - 1, h - 1);
    }
    if (how === 'attended') continue;
    for (const [n, most, colour, at] of [[m.kept[i], scale.keys, '#5ec8ff', 0.28], [m.merged[i], scale.merged, '#ffb454', 0.72]]) {
      if (n < 0.05) continue;
      d.beginPath();
      d.arc(x + at * w, y + 0.72 * h, Math.max(1.5, r * Math.sqrt(n / most)), 0, 7);
      d.fillStyle = colour;
      d.strokeStyle = 'rgb(0 0 0 / 0.65)';
      d.lineWidth = 1.5;
      d.fill();
      d.stroke();
    }
  }
}

// ---- settings

function settle(model) {
  text('model', `${model.id}, ${model.width}×${model.height}, ${model.kernel_class}`);
  for (const i of [0, 1]) {
    const list = $('policy' + i);
    list.replaceChildren(...(i ? [new Option('nothing', '')] : []),
      ...model.policies.map(p => { const o = new Option(`${p.name} · ${size(p.session_bytes)}`, p.name); o.title = p.about || ''; return o; }));
  }
}

function show(session) {
  state.session = session;
  $('policy0').value = session.policy;
  $('policy1').value = session.compare || '';
  $('second').hidden = !session.compare;
  drawMaps();
  if (document.activeElement !== $('rate')) $('rate').value = session.fps;
  if (document.activeElement !== $('seed')) $('seed').value = session.seed;
  $('pause').setAttribute('aria-pressed', session.status === 'paused');
  if (session.recording && state.recording !== session.recording) state.recording = session.recording;
  const on = !!session.recording;
  if (!on && state.recording && $('record').getAttribute('aria-pressed') === 'true') offer(state.recording);
  $('record').setAttribute('aria-pressed', on);
}

function offer(id) {
  const a = document.createElement('a');
  a.href = `/v1/recordings/${id}/content`;
  a.download = '';
  a.textContent = 'Save recording';
  const log = document.createElement('a');
  log.href = `/v1/logs/${state.session.id}`;
  log.download = '';
  log.textContent = 'Event log';
  $('files').replaceChildren(a, log);
}

function setPrompt(p) {
  $('prompt').value = p;
  const buttons = /the sky is \S+/.test(p) ? skies.map(s => {
    const b = document.createElement('button');
    b.type = 'button';
    b.textContent = s;
    b.onclick = () => { $('prompt').value = $('prompt').value.replace(/the sky is \S+/, 'the sky is ' + s); applyPrompt(); };
    return b;
  }) : [];
  $('skies').replaceChildren(...buttons);
}

async function applyPrompt() {
  try {
    const n = await order({ type: 'prompt', prompt: $('prompt').value });
    text('told', `In use from chunk ${n.chunk}.` + (n.unknown_words ? ` Not known: ${n.unknown_words.join(', ')}.` : ''));
  } catch (e) {
    text('told', e.message);
  }
}

$('describe').onsubmit = e => { e.preventDefault(); applyPrompt(); $('screen0').focus(); };
$('policy0').onchange = e => tell({ type: 'policy', view: 0, policy: e.target.value });
$('policy1').onchange = e => tell({ type: 'compare', policy: e.target.value });
$('rate').onchange = e => { if (e.target.validity.valid && e.target.value) tell({ type: 'fps', fps: Number(e.target.value) }); };
$('format').onchange = connect;
$('overlay').onchange = () => { tell({ type: 'map', map: !!$('overlay').value }); drawMaps(); };
$('pause').onclick = () => tell({ type: 'pause', paused: $('pause').getAttribute('aria-pressed') !== 'true' });
$('record').onclick = () => tell({ type: 'record', record: $('record').getAttribute('aria-pressed') !== 'true' });
$('full').onclick = () => document.fullscreenElement ? document.exitFullscreen() : $('stage').requestFullscreen?.();
$('random').onclick = () => { $('seed').value = Math.floor(Math.random() * 2 ** 31); $('restart').requestSubmit(); };
$('restart').onsubmit = e => {
  e.preventDefault();
  const seed = $('seed').value;
  if (state.socket?.readyState !== WebSocket.OPEN) { begin({ seed: Number(seed) }); return; }
  tell({ type: 'reset', seed: Number(seed) });
  $('screen0').focus();
};
$('replay').onclick = async () => {
  try {
    const log = await ask(`/v1/sessions/${state.session.id}/snapshot`);
    const old = state.session.id;
    state.session = await ask('/v1/restore', { method: 'POST', headers: { 'Content-Type': 'application/jsonl' }, body: log });
    connect();
    say('making the same frames again');
    fetch('/v1/sessions/' + old, { method: 'DELETE' });
  } catch (e) {
    say(e.message, true);
  }
};

// ---- keys

function hold(key, down) {
  if (down === state.held.has(key)) return;
  if (down) state.held.add(key); else state.held.delete(key);
  document.querySelector(`#pad [data-key="${key}"]`)?.classList.toggle('down', down);
  order({ type: 'keys', keys: [...state.held] }).catch(() => {});
}

const typing = e => e.target.matches?.('input, textarea, select') || $('gate').open;

addEventListener('keydown', e => {
  if (typing(e) || e.ctrlKey || e.metaKey || e.altKey) return;
  if (state.model?.keys?.[e.code]) {
    e.preventDefault();
    if (!e.repeat) hold(e.code, true);
  } else if (e.code === 'KeyM') { $('overlay').value = $('overlay').value ? '' : 'all'; $('overlay').onchange(); }
  else if (e.code === 'KeyF') $('full').click();
  else if (e.code === 'KeyR') $('record').click();
  else if (e.code === 'Space' && !e.target.matches('button')) { e.preventDefault(); $('pause').click(); }
});
addEventListener('keyup', e => hold(e.code, false));
addEventListener('blur', () => { for (const key of [...state.held]) hold(key, false); });
for (const b of document.querySelectorAll('#pad button')) {
  const key = b.dataset.key;
  b.addEventListener('pointerdown', e => { e.preventDefault(); b.setPointerCapture(e.pointerId); hold(key, true); });
  for (const up of ['pointerup', 'pointercancel', 'lostpointercapture']) b.addEventListener(up, () => hold(key, false));
  b.addEventListener('contextmenu', e => e.preventDefault());
  // A screen reader's or a keyboard's click is a short step.
  b.addEventListener('click', e => { if (e.detail === 0) { hold(key, true); setTimeout(() => hold(key, false), 100); } });
}

// A page that is left ends its session; one that is kept for the back button takes up a new one.
addEventListener('pagehide', () => {
  state.leaving = true;
  if (state.session) fetch('/v1/sessions/' + state.session.id, { method: 'DELETE', keepalive: true });
});
addEventListener('pageshow', e => { if (e.persisted) location.reload(); });

const query = new URLSearchParams(location.search);
begin({ seed: Number(query.get('seed') || 0), policy: query.get('policy') || undefined, compare: query.get('compare') || undefined });
