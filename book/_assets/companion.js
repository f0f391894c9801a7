// A formula that scrolls sideways can be scrolled from the keyboard too; the theme sees to code, outputs and tables.
(function () {
  function markFormulas() {
    for (const formula of document.querySelectorAll("div.math")) {
      if (formula.scrollWidth > formula.clientWidth + 1) {
        formula.tabIndex = 0;
      } else {
        formula.removeAttribute("tabindex");
      }
    }
  }

  window.addEventListener("resize", markFormulas);
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    markFormulas();
  });
})();
