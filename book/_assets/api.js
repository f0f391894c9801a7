// The pages of the API reference.
//
// Its place in the sidebar opens by a button without a text: it gets a name.
// The API reference was one page once: an address such as api.html#companion.laws.optimum leads to the page that has it.
(function () {
  const list = document.getElementById("companion-api-pages");

  function forward() {
    const name = location.hash.slice(1).replace(/^module-/, "");
    if (!list || !name.startsWith("companion") || document.getElementById(location.hash.slice(1))) {
      return;
    }
    const pages = JSON.parse(list.textContent);
    let module = name;
    while (module && !(module in pages)) {
      module = module.slice(0, Math.max(0, module.lastIndexOf(".")));
    }
    if (module) {
      location.replace(pages[module] + location.hash);
    }
  }

  for (const toggle of document.querySelectorAll(".bd-links summary")) {
    const parent = toggle.closest("li")?.querySelector("a");
    toggle.setAttribute("aria-label", `Pages of ${parent ? parent.textContent.trim() : "this part"}`);
  }

  window.addEventListener("hashchange", forward);
  forward();
})();
