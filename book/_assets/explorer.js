// The explorer's controls, table, words and address. Numbers come from explorer_model.js, plots from explorer_plots.js.
(function () {
  "use strict";

  const section = document.getElementById("explorer");
  const source = document.getElementById("explorer-model");
  if (!section || !source) {
    return;
  }
  const model = JSON.parse(source.textContent);
  const core = window.companionExplorerModel.create(model);
  const { notes: notesOfHours } = window.companionExplorerHours;
  const { format, fillTable, powerOfTen } = window.companionExplorerFormat;
  const { count, duration, ratio: significant } = format;
  const inputs = Object.fromEntries(
    model.controls.map(({ name, key }) => [name, document.getElementById(`explorer-${key}`)]),
  );
  const hardwareInput = document.getElementById("explorer-hardware");
  const optimalInput = document.getElementById("explorer-optimal");
  const problem = section.querySelector(".companion-explorer-problem");
  const controlOf = Object.fromEntries(model.controls.map((control) => [control.name, control]));
  let setting = { ...model.default };

  // ---- Words

  // Symbol of what may leave the data, and how it is written
  const words = {
    num_params: ["N", count],
    num_tokens: ["D", count],
    tokens_per_param: ["M", significant],
    train_flops: ["C", (value) => powerOfTen(value)],
    context_length: ["T", (value) => Math.round(value).toLocaleString("en")],
    batch_size: ["B", (value) => value.toLocaleString("en")],
    batch_tokens: ["B·T", count],
  };

  // Numbers whose ranges one sentence lists, and how it marks their symbols; notesOfHours has the rest
  const ofNumbers = { loss: "", optimum: "*", ttft: "", step_time: "" };

  // At another context length than that of the runs the law stays as it is
  function notesOfLaws() {
    const at = words.context_length[1];
    const apart = new Map();
    for (const { name, law_context: context } of model.architectures) {
      if (context !== null && context !== setting.context_length) {
        apart.set(context, [...(apart.get(context) ?? []), model.look[name].label]);
      }
    }
    return [...apart].map(([context, labels]) => {
      const whose = labels.length < model.architectures.length ? ` of ${labels.join(" and ")}` : "";
      const where = `T = ${at(context)}; at T = ${at(setting.context_length)} only the cost is counted again`;
      return ["open", `The loss${whose} is the law of ${where}.`];
    });
  }

  // What a reader must know of these numbers: what does not fit, what no data stand behind
  function notesOf(result) {
    const label = (name) => model.look[name].label;
    const target = core.hardware[setting.hardware];
    const notes = [];
    for (const [name, { fits, numbers }] of Object.entries(result)) {
      if (!fits) {
        const [needs, has] = [numbers.memory_bytes, target.memory_bytes].map(format.bytes);
        notes.push(["bad", `${label(name)} does not fit: it needs ${needs}, ${target.label} has ${has}.`]);
      }
    }
    for (const [name, { below_roofline: below }] of Object.entries(result)) {
      for (const of of below) {
        const time = of === "ttft" ? "time to first token" : "step time";
        notes.push(["bad", `${label(name)}: a ${time} below the roofline cannot be. The model of times fails here.`]);
      }
    }
    for (const [name, { outside }] of Object.entries(result)) {
      const parts = new Map(); // each quantity once, though several numbers depend on it
      for (const left of outside.filter(({ of }) => Object.hasOwn(ofNumbers, of))) {
        const [symbol, write] = words[left.name];
        const own = left.name in result[name].numbers;
        const place = `${symbol}${own ? ofNumbers[left.of] : ""} = ${write(left.value)}`;
        if (!parts.has(place)) {
          parts.set(place, `${place} (data: ${write(left.low)} to ${write(left.high)})`);
        }
      }
      if (parts.size) {
        notes.push(["open", `${label(name)} is outside the data in ${[...parts.values()].join(", ")}.`]);
      }
    }
    const timed = core.hardware[model.architectures[0].ttft.hardware];
    if (timed.name !== target.name) {
      const scaled = `Times on ${target.label} are scaled by its peaks from ${timed.label}`;
      notes.push(["open", `${scaled}; nothing was timed on it.`]);
    }
    return [...model.notes, ...notes, ...notesOfHours(model, core, setting, result, words, format), ...notesOfLaws()];
  }

  function showNotes(result) {
    const list = document.createElement("ul");
    for (const [kind, text] of notesOf(result)) {
      const item = document.createElement("li");
      item.className = `companion-explorer-${kind}`;
      item.textContent = text;
      list.append(item);
    }
    section.querySelector(".companion-explorer-notes").replaceChildren(...(list.children.length ? [list] : []));
  }

  // ---- Table and controls

  // Architectures without a law: what can be counted of them
  function showCounts() {
    const cells = section.querySelectorAll("td[data-count]");
    if (cells.length) {
      const kinds = Object.fromEntries(model.count_rows.map((row) => [row.key, row.format]));
      const counted = core.count(setting);
      for (const cell of cells) {
        const { count: key, architecture } = cell.dataset;
        cell.textContent = format[kinds[key]](counted[architecture][key]);
      }
    }
  }

  const stepAt = (name) => controlOf[name].steps[Number(inputs[name].value)];

  function showControls(result) {
    for (const { name, key } of model.controls) {
      let { text } = stepAt(name);
      const optimal = name === "tokens_per_param" && setting.tokens_per_param === null;
      if (optimal) {
        text = Object.values(result).map(({ numbers }) => significant(numbers.tokens_per_param)).join(", ");
      }
      inputs[name].classList.toggle("companion-explorer-idle", optimal);
      inputs[name].setAttribute("aria-valuetext", optimal ? `compute-optimal: ${text}` : text);
      document.getElementById(`explorer-${key}-value`).textContent = text;
    }
    optimalInput.checked = setting.tokens_per_param === null;
    hardwareInput.value = setting.hardware;
  }

  function moveControls() {
    for (const { name, steps } of model.controls) {
      if (setting[name] !== null) {
        inputs[name].value = String(steps.findIndex(({ value }) => value === setting[name]));
      }
    }
  }

  // ---- Drawing: at most once per frame

  let waiting = 0;
  function render() {
    waiting = 0;
    const result = core.evaluate(setting);
    showControls(result);
    fillTable(section, model.rows, result);
    showCounts();
    showNotes(result);
    if (window.Plotly) {
      window.companionExplorerPlots.draw(section, core, model, setting, result, format);
    }
    return result;
  }

  function schedule() {
    waiting ||= requestAnimationFrame(render);
  }

  // ---- Speech: one sentence, once the reader rests

  let speech = 0;
  function speak() {
    clearTimeout(speech);
    speech = setTimeout(() => {
      const parts = Object.entries(core.evaluate(setting)).map(([name, { numbers, fits }]) => {
        const times = `first token ${duration(numbers.ttft_s)}, step ${duration(numbers.step_time_s)}`;
        const memory = `${format.bytes(numbers.memory_bytes)}${fits ? "" : ", does not fit"}`;
        const hours = numbers.train_gpu_hours === null ? "" : `, ${count(numbers.train_gpu_hours)} GPU-hours`;
        return `${model.look[name].label}: loss ${format.loss(numbers.loss)}${hours}, ${times}, ${memory}`;
      });
      section.querySelector(".companion-explorer-live").textContent = `${parts.join(". ")}.`;
    }, 1000);
  }

  // ---- Address: the setting stands behind the #

  function linkOf() {
    const parts = model.controls.map(({ name, key, steps }) => {
      const step = steps.find(({ value }) => value === setting[name]);
      return `${key}=${step ? step.link : model.optimal}`;
    });
    return `#${[...parts, `hardware=${setting.hardware}`].join("&")}`;
  }

  let writing = 0;
  function writeAddress(delay) {
    clearTimeout(writing);
    writing = setTimeout(() => history.replaceState(history.state, "", linkOf()), delay);
  }

  // One value of a link, and what is wrong with it
  function readValue({ key, label, steps, name }, text) {
    const fallback = steps.find(({ value }) => value === model.default[name])?.text ?? "compute-optimal";
    if (name === "tokens_per_param" && text === model.optimal) {
      return [null, ""];
    }
    const value = /^\d+(\.\d+)?(e\+?\d+)?$/i.test(text) ? Number(text) : NaN;
    const [first, last] = [steps[0], steps[steps.length - 1]];
    if (!(value >= first.value && value <= last.value)) {
      const from = `it goes from ${first.text} to ${last.text}`;
      return [model.default[name], `${key}=${text} is not a ${label}: ${from}. ${fallback} is taken.`];
    }
    const distance = (step) => Math.abs(Math.log(step.value / value));
    const next = steps.reduce((best, step) => (distance(step) < distance(best) ? step : best));
    return [next.value, distance(next) < 1e-9 ? "" : `${key}=${text} is not a step of ${label}: ${next.text} is taken.`];
  }

  function readAddress(hash) {
    const given = new URLSearchParams(hash.slice(1));
    const found = { ...model.default };
    const problems = [];
    for (const [key, text] of given) {
      const control = model.controls.find((one) => one.key === key);
      if (control) {
        const [value, wrong] = readValue(control, text);
        found[control.name] = value;
        problems.push(wrong);
      } else if (key === "hardware" && Object.hasOwn(core.hardware, text)) {
        found.hardware = text;
      } else if (key === "hardware") {
        problems.push(`hardware=${text} is not known. ${core.hardware[model.default.hardware].label} is taken.`);
      } else {
        problems.push(`${key} is nothing that can be set here.`);
      }
    }
    return { found, problems: problems.filter(Boolean) };
  }

  function showProblems(problems) {
    problem.textContent = problems.length ? `In the link: ${problems.join(" ")}` : "";
    problem.hidden = !problems.length;
  }

  function applyAddress() {
    const isSetting = location.hash.includes("=");
    if (!isSetting && location.hash !== "") {
      return; // a heading of the page
    }
    clearTimeout(writing);
    const { found, problems } = isSetting ? readAddress(location.hash) : { found: { ...model.default }, problems: [] };
    setting = found;
    showProblems(problems);
    moveControls();
    schedule();
    if (isSetting) {
      section.focus({ preventScroll: true });
      section.scrollIntoView({ block: "start" });
    }
  }

  // ---- What the reader does

  function changed() {
    showProblems([]);
    document.getElementById("explorer-copied").textContent = "";
    schedule();
    speak();
    writeAddress(350); // browsers refuse more than about three changes of the address per second
  }

  for (const { name } of model.controls) {
    inputs[name].addEventListener("input", () => {
      setting[name] = stepAt(name).value;
      changed();
    });
  }
  optimalInput.addEventListener("change", () => {
    setting.tokens_per_param = optimalInput.checked ? null : stepAt("tokens_per_param").value;
    changed();
  });
  hardwareInput.addEventListener("change", () => {
    setting.hardware = hardwareInput.value;
    changed();
  });
  document.getElementById("explorer-reset").addEventListener("click", () => {
    setting = { ...model.default };
    moveControls();
    changed();
  });
  document.getElementById("explorer-copy").addEventListener("click", async () => {
    const said = document.getElementById("explorer-copied");
    writeAddress(0);
    try {
      await navigator.clipboard.writeText(location.href.split("#")[0] + linkOf());
      said.textContent = "Link copied.";
    } catch {
      said.textContent = "The browser does not let a page copy: the link is in its address bar.";
    }
  });
  section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", applyAddress);
  new MutationObserver(schedule).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  // The place of a name in a plot depends on the plot's width
  let width = section.clientWidth;
  new ResizeObserver(() => {
    if (section.clientWidth !== width) {
      width = section.clientWidth;
      schedule();
    }
  }).observe(section);

  // plotly is large and comes last: numbers first, plots when it is here
  document.querySelector("script[src$='plotly.min.js']").addEventListener("load", schedule);
  window.addEventListener("load", () => {
    // not before: the theme takes every address behind a # for that of a heading when the page is loaded
    setTimeout(() => {
      for (const link of document.querySelectorAll("a[data-setting]")) {
        link.href = `#${link.dataset.setting}`;
      }
    });
    if (!window.Plotly) {
      const missing = document.createElement("p");
      missing.className = "companion-explorer-missing";
      missing.textContent = "The plotting library could not be loaded: there are no plots, but all numbers are below.";
      section.querySelector(".companion-explorer-plots").replaceChildren(missing);
    }
  });

  // ---- A way past the site's navigation, behind the theme's own

  function addSkipLink() {
    const skip = document.createElement("div");
    skip.className = "skip-link companion-skip d-print-none";
    const link = document.createElement("a");
    link.href = `#${inputs.train_flops.id}`;
    link.textContent = "Skip to the explorer's sliders";
    link.addEventListener("click", (event) => {
      event.preventDefault(); // the address keeps its setting
      inputs.train_flops.focus({ preventScroll: true });
      section.scrollIntoView({ block: "start" });
    });
    skip.append(link);
    const first = document.getElementById("pst-skip-link");
    if (first) {
      first.after(skip);
    } else {
      document.body.prepend(skip);
    }
  }

  addSkipLink();
  moveControls();
  if (location.hash.includes("=")) {
    applyAddress();
  }
  render();
  window.companionExplorer = { evaluate: core.evaluate, count: core.count, setting: () => ({ ...setting }), format };
})();
