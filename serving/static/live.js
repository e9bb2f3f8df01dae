// The WebSocket: pictures in, reconnecting with growing pauses, and how long the way takes.

const FIRST_PAUSE = 500, LONGEST_PAUSE = 10000, SILENCE = 5000, PING_EVERY = 5000;

/** Keep a connection; `on.picture(picture, arrived)` and `on.link(state, nextTry)` are told. */
export function connect(on) {
  let socket, pause = FIRST_PAUSE, retry = 0, watchdog = 0, roundTrip = null;

  const open = () => {
    clearTimeout(retry);
    retry = 0;
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
    socket.addEventListener("message", receive);
    socket.addEventListener("close", lost);
    socket.addEventListener("open", () => { ping(); listen(); });
    listen();
  };
  const listen = () => {
    clearTimeout(watchdog);
    // A dead peer closes nothing: silence counts as a loss.
    watchdog = setTimeout(() => { socket.close(); lost(); }, SILENCE + pause);
  };
  const lost = () => {
    if (retry) return;
    clearTimeout(watchdog);
    socket.removeEventListener("close", lost);
    socket.removeEventListener("message", receive);
    const wait = pause * (0.75 + Math.random() / 2);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
    retry = setTimeout(open, wait);
    on.link("lost", Date.now() + wait);
  };
  const receive = (event) => {
    const arrived = performance.now();
    if (event.data.startsWith("ping ")) {
      roundTrip = arrived - Number(event.data.slice(5));
      return;
    }
    pause = FIRST_PAUSE;
    listen();
    on.link("live", 0);
    on.picture(JSON.parse(event.data), arrived);
  };
  const ping = () => {
    if (socket.readyState === WebSocket.OPEN) socket.send(`ping ${performance.now()}`);
  };
  const hasten = () => {
    if (retry && document.visibilityState === "visible") { pause = FIRST_PAUSE; open(); }
  };
  setInterval(ping, PING_EVERY);
  addEventListener("online", hasten);
  document.addEventListener("visibilitychange", hasten);
  open();
  return { transitSeconds: () => (roundTrip === null ? 0 : roundTrip / 2000) };
}
