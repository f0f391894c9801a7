// What the theme leaves undone for the keyboard and for screen readers: a formula that scrolls sideways can be focused
// and has a name, and the book's title in the sidebar is in a landmark.
(function () {
  function mark(formula) {
    const scrolls = formula.clientWidth > 0 && formula.scrollWidth > formula.clientWidth + 1;
    const set = (name, value) => (scrolls ? formula.setAttribute(name, value) : formula.removeAttribute(name));
    set("tabindex", "0");
    set("role", "group");
    set("aria-label", "Formula, scrolls sideways");
  }

  const home = document.querySelector(".sidebar-primary-items__start > .sidebar-primary-item:has(.navbar-brand)");
  home?.setAttribute("role", "navigation");
  home?.setAttribute("aria-label", "Home");

  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    // also when a fold opens: before that a formula in it has no width; and when its own size changes with a late font
    const watcher = new ResizeObserver((entries) =>
      entries.forEach((entry) => mark(entry.target.closest("mjx-container"))),
    );
    document
      .querySelectorAll("mjx-container[display='true'], mjx-container[display='true'] > mjx-math")
      .forEach((part) => watcher.observe(part));
  });
})();
