// Boxes that sphinx-togglebutton folds: each button is named after its box, not "Toggle hidden content".
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button.toggle-button")) {
    const title = button.closest(".admonition-title")?.textContent.trim();
    if (title) {
      button.setAttribute("aria-label", `Show or hide: ${title}`);
    }
  }
});

// What a link leads to may be folded: it is opened, and looked for again once the tables above it have their form.
(function () {
  function show() {
    const target = document.querySelector(":target");
    if (!target) return;
    let opened = false;
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      opened = true; // by the browser already, or here
      fold.open = true;
    }
    if (!opened) return;
    const look = () => target.scrollIntoView({ behavior: "instant" });
    requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(look)));
  }

  window.addEventListener("hashchange", show);
  window.addEventListener("load", show);
})();
