// Colours before the first paint, so that a dark page never flashes white.
(() => {
  const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();
