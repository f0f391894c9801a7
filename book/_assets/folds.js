// Boxes that sphinx-togglebutton folds: each button is named after its box, not "Toggle hidden content".
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button.toggle-button")) {
    const title = button.closest(".admonition-title")?.textContent.trim();
    if (title) {
      button.setAttribute("aria-label", `Show or hide: ${title}`);
    }
  }
});
