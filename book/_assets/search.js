// Excerpts of search results show what a reader sees: no buttons, no raw TeX, no table without spaces between its cells.
(function () {
  if (typeof Search === "undefined") {
    return;
  }

  const NOT_READ =
    ".headerlink, script, style, template, button, summary, svg, nav, details.hide, .math, .copybtn, .companion-explorer-controls, [hidden]";
  const BLOCKS = "p, li, dt, dd, td, th, tr, h1, h2, h3, h4, h5, h6, pre, div, figcaption, br";
  // in captions and cells of the package's own tables, which MathJax typesets in the page
  const TEX = /\\\([\s\S]*?\\\)|\\\[[\s\S]*?\\\]|\$\$[\s\S]*?\$\$/g;

  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const main = page.querySelector("[role='main'] article") ?? page.querySelector("[role='main']");
    const part = anchor ? page.getElementById(anchor.slice(1)) : null;
    const shown = part ?? main;
    if (!shown) {
      return "";
    }
    for (const element of shown.querySelectorAll(NOT_READ)) {
      element.replaceWith(element.matches(".math, svg") ? "…" : " ");
    }
    for (const block of shown.querySelectorAll(BLOCKS)) {
      block.append(" ");
    }
    return shown.textContent.replace(TEX, "…").replace(/\s+/g, " ").trim();
  };
})();
