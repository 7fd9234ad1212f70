// Drives the page of a running server in Chromium: node page.mjs URL FOLDER. Screenshots go to the folder. Needs playwright-core
// (found through NODE_PATH) and Debian's Chromium.
import { createRequire } from 'node:module';
import { mkdirSync } from 'node:fs';

const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT || 'playwright-core');
const [url, folder] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const patience = { timeout: 60000 };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
let failed = 0;
const check = (what, ok) => { console.log(`${ok ? 'ok  ' : 'FAIL'} ${what}`); if (!ok) failed++; };
const pixels = page => page.evaluate(() => { const c = document.getElementById('screen0'); return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; });
const differ = (a, b) => a.length !== b.length ? 255 : a.reduce((s, v, i) => s + Math.abs(v - b[i]), 0) / a.length;
const chunk = page => page.evaluate(() => longtake.views[0].last?.chunk ?? 0);
const later = async (page, n) => { const from = await chunk(page); await page.waitForFunction(c => longtake.views[0].last?.chunk >= c, from + n, patience); };

const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
const errors = [];
page.on('pageerror', e => errors.push(String(e)));
page.on('console', m => { if (m.type() === 'error') errors.push(m.text()); });
const began = Date.now();
await page.goto(url);
await page.waitForFunction(() => longtake.views[0].shown > 0, null, patience);
console.log(`first picture after ${Date.now() - began} ms`);
await page.waitForFunction(() => longtake.shown > 8, null, patience);
check('the model is named', (await page.textContent('#model')).length > 3);
check('the picture is not black', (await pixels(page)).some((v, i) => i % 4 < 3 && v > 60));
await page.screenshot({ path: folder + '/1-start.png' });

const before = await pixels(page);
await page.keyboard.down('KeyD');
await page.waitForFunction(() => longtake.views[0].last.action === 'turn_right', null, patience);
check('a key leads to its action', true);
await later(page, 6);
await page.keyboard.up('KeyD');
await page.waitForFunction(() => longtake.views[0].last.action === 'noop', null, patience);
check('released, it stands still', true);
check('the picture has turned', differ(before, await pixels(page)) > 2);
check('the delay of keys is measured', await page.evaluate(() => longtake.lag > 0));
await page.keyboard.down('KeyW');
await later(page, 5);
await page.keyboard.up('KeyW');

await page.fill('#prompt', (await page.inputValue('#prompt')).replace(/the sky is \S+/, 'the sky is night') + ' zeppelin');
await page.click('#describe button[type=submit]');
await page.waitForFunction(() => /In use from chunk \d+/.test(document.getElementById('told').textContent), null, patience);
check('unknown words are named', (await page.textContent('#told')).includes('zeppelin'));
await later(page, 10);
await page.screenshot({ path: folder + '/2-night.png' });

await page.selectOption('#policy1', 'fast');
await page.waitForFunction(() => longtake.views[1].shown > 6, null, patience);
check('a second view is beside the first', await page.isVisible('#screen1'));
await page.keyboard.down('ArrowLeft');
await later(page, 5);
await page.keyboard.up('ArrowLeft');
check('both views have the same chunk and action', await page.evaluate(() => longtake.views[1].last.policy === 'fast'));
await page.selectOption('#overlay', 'all');
await page.waitForFunction(() => longtake.views[0].maps > 1 && longtake.views[1].maps > 1, null, patience);
await later(page, 6);
check('both views have a map over the picture', await page.isVisible('#map0') && await page.isVisible('#map1') && await page.isVisible('#key'));
check('the map is drawn', await page.evaluate(() => { const c = document.getElementById('map0'); return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0); }));
await page.screenshot({ path: folder + '/3-compare.png' });
await page.selectOption('#overlay', '');
check('it goes away', await page.isHidden('#map0') && await page.isHidden('#key'));
await page.selectOption('#policy1', '');
await page.waitForFunction(() => document.getElementById('second').hidden, null, patience);

await page.click('#record');
await later(page, 10);
await page.click('#record');
await page.waitForSelector('#files a', patience);
const file = await page.evaluate(async () => { const a = await fetch(document.querySelector('#files a').href); return { ok: a.ok, size: (await a.arrayBuffer()).byteLength }; });
check(`a recording of ${file.size} bytes`, file.ok && file.size > 1000);
const played = await page.evaluate(async () => {
  const v = document.createElement('video');
  v.muted = true;
  const blob = await (await fetch(document.querySelector('#files a').href)).blob();
  v.src = URL.createObjectURL(blob);
  await v.play();
  await new Promise(done => setTimeout(done, 700));
  return [v.videoWidth, v.currentTime];
});
check(`the browser plays it (${played})`, played[0] >= 64 && played[1] > 0);

await page.fill('#seed', '11');
await page.click('#restart button[type=submit]');
await page.waitForFunction(() => longtake.session.seed === 11, null, patience);
await later(page, 4);
check('the world is another', differ(before, await pixels(page)) > 2);
const id = await page.evaluate(() => longtake.session.id);
await page.click('#replay');
await page.waitForFunction(old => longtake.session.id !== old && longtake.views[0].shown > 3, id, patience);
check('a replay is another session', true);
await page.waitForFunction(() => longtake.session.status !== 'restoring' && longtake.socket.readyState === 1, null, patience);

// A lost connection comes back to the same session.
const same = await page.evaluate(() => { const s = longtake.session.id; longtake.socket.close(); return s; });
const shown = await page.evaluate(() => longtake.shown);
await page.waitForFunction(n => longtake.shown > n + 3, shown, patience);
check('a cut connection is taken up again', same === await page.evaluate(() => longtake.session.id));
await page.click('#pause');
await page.waitForFunction(() => document.getElementById('pause').getAttribute('aria-pressed') === 'true', null, patience);
await page.click('#pause');

await page.selectOption('#format', 'webrtc');
await page.waitForFunction(() => !document.getElementById('video').hidden || document.getElementById('format').value === 'jpeg', null, patience);
if (await page.inputValue('#format') === 'webrtc') {
  const from = await page.evaluate(() => document.getElementById('video').currentTime);
  await page.waitForFunction(t => document.getElementById('video').currentTime > t + 0.5, from, patience);
  check(`video by WebRTC, ${await page.evaluate(() => document.getElementById('video').videoWidth)} pixels wide`, true);
  await page.screenshot({ path: folder + '/5-webrtc.png' });
} else {
  await later(page, 3);
  check('video by WebRTC: ' + await page.textContent('#status'), process.env.WEBRTC === 'none');
}
await page.evaluate(() => { window.RTCPeerConnection = class { addTransceiver() { throw new Error('UDP is blocked'); } close() {} }; });
await page.selectOption('#format', 'raw');
await page.selectOption('#format', 'webrtc');
await page.waitForFunction(() => document.getElementById('format').value === 'jpeg', null, patience);
await later(page, 5);
check('without WebRTC pictures come by the WebSocket', await page.isVisible('#screen0'));

for (const name of await page.$$eval('button, select, input, textarea', all => all.filter(e => !e.closest('#skies') &&
  !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.id || e.outerHTML))) check('a label for ' + name, false);
check('no errors on the page: ' + errors.join('; '), errors.length === 0);
await page.close();

const phone = await browser.newContext({ viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
const small = await phone.newPage();
await small.goto(url);
await small.waitForFunction(() => longtake.shown > 4, null, patience);
check('nothing is wider than a phone', await small.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
check('touch keys are there', await small.isVisible('#pad [data-key=KeyW]'));
await small.dispatchEvent('#pad [data-key=KeyW]', 'pointerdown', { pointerId: 1, pointerType: 'touch', isPrimary: true });
await small.waitForFunction(() => longtake.views[0].last.action === 'forward', null, patience).then(() => check('a touch walks', true), () => check('a touch walks', false));
await small.screenshot({ path: folder + '/4-phone.png' });
await small.close();
await browser.close();
console.log(failed ? `${failed} failed` : 'all well');
process.exit(failed ? 1 : 0);
