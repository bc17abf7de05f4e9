// What style sheets cannot: boxes that scroll are reached by keys, and paper is light and unfolded.
const BOXES = ".bd-article :is(table, figure, div.math, mjx-container, .cell_output)";

function reach() {
  for (const box of document.querySelectorAll(BOXES)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

window.addEventListener("load", () => {
  const sidebar = document.getElementById("pst-primary-sidebar");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "Book");
  reach();
  window.MathJax?.startup?.promise?.then(reach);
});
window.addEventListener("resize", reach);

let theme, folded;

window.addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  folded = [...document.querySelectorAll(".bd-article details:not([open])")];
  for (const fold of folded) fold.open = true;
});
window.addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
  for (const fold of folded) fold.open = false;
});
