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

// On paper nothing can be unfolded: tables, figures and solutions are open, code alone stays away.
(function () {
  const inside = "figure, .companion-table, .math, p:not(.admonition-title)";

  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("article details:not([open])")) {
      const solution = fold.classList.contains("companion-solution");
      if (!solution && !fold.querySelector(inside)) continue;
      fold.open = true;
      fold.classList.add("companion-opened");
      fold.classList.toggle("companion-printed", !solution);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const fold of document.querySelectorAll("details.companion-opened")) {
      fold.open = false;
      fold.classList.remove("companion-opened", "companion-printed");
    }
  });
})();
