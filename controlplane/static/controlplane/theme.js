// On a page without unfold's scripts: the colors that were chosen in the console, or the browser's.
"use strict";
(() => {
  let chosen = "auto";
  try {
    chosen = JSON.parse(localStorage.getItem("_x_adminTheme")) ?? "auto";
  } catch {
    // Storage may be closed to us, or hold something else.
  }
  const isDark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark", isDark);
})();
