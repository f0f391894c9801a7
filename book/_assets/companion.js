// What the theme leaves undone for the keyboard and for screen readers: a formula that scrolls sideways can be focused,
// and the book's title in the sidebar is in a landmark.
(function () {
  function markFormulas() {
    for (const formula of document.querySelectorAll("div.math, mjx-container[display='true']")) {
      if (formula.scrollWidth > formula.clientWidth + 1) {
        formula.tabIndex = 0;
      } else {
        formula.removeAttribute("tabindex");
      }
    }
  }

  const home = document.querySelector(".sidebar-primary-items__start > .sidebar-primary-item:has(.navbar-brand)");
  home?.setAttribute("role", "navigation");
  home?.setAttribute("aria-label", "Home");

  window.addEventListener("resize", markFormulas);
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    markFormulas();
  });
})();
