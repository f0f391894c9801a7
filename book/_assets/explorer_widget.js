// The small explorers of chapters: sliders, numbers, one plot. Numbers come from explorer_model.js, as in the whole
// explorer. Where this does not run, a table of some settings stays.
(function () {
  "use strict";

  const { format, fillTable, powerOfTen, ticks, contextText } = window.companionExplorerFormat;
  const HEIGHT = 210;
  const MARGIN = { left: 46, right: 10, top: 8, bottom: 24 };
  const NAMESPACE = "http://www.w3.org/2000/svg";

  // ---- The plot

  function element(name, attributes, text = "") {
    const made = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) {
      made.setAttribute(key, value);
    }
    made.textContent = text;
    return made;
  }

  const AXIS = {
    context_length: (range) => {
      const values = [8, 11, 14, 17, 20].map((power) => 2 ** power).filter((one) => one >= range[0] && one <= range[1]);
      return { tickvals: values, ticktext: values.map(contextText) };
    },
    tokens_per_param: (range) => ticks(range, format.tick),
    train_flops: (range) => ticks(range, (value) => powerOfTen(value).replace("1×", "")),
  };

  function linearTicks([low, high]) {
    const rough = (high - low) / 4;
    const decade = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((digit) => digit * decade).find((one) => one >= rough);
    const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const tickvals = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) {
      tickvals.push(k * step);
    }
    return { tickvals, ticktext: tickvals.map((value) => value.toFixed(places)) };
  }

  // Counts on a logarithmic axis, losses on a linear one
  function verticalAxis(values, kind) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (kind === "count") {
      const range = [low / 1.3, high * 1.3];
      return { range, scale: Math.log, ...ticks(range, format.tickCount) };
    }
    const pad = 0.06 * (high - low) || 0.05;
    const range = [low - pad, high + pad];
    return { range, scale: (value) => value, ...linearTicks(range) };
  }

  function place({ range, scale }, from, to) {
    const [low, high] = range.map(scale);
    return (value) => from + ((to - from) * (scale(value) - low)) / (high - low);
  }

  // A path through the points; those that do not count break it
  function path(points, counts) {
    let pen = "M";
    let d = "";
    for (const point of points) {
      if (counts(point)) {
        d += `${pen}${point.at.map((value) => value.toFixed(1)).join(" ")}`;
        pen = "L";
      } else {
        pen = "M";
      }
    }
    return d;
  }

  function marker(symbol, [x, y], color) {
    const look = { fill: color, stroke: "currentColor", "stroke-width": 1 };
    return symbol === "square"
      ? element("rect", { x: x - 5, y: y - 5, width: 10, height: 10, ...look })
      : element("circle", { cx: x, cy: y, r: 5.5, ...look });
  }

  // `curves`: by architecture its look, points {x, y, inside}, and the one of the setting
  function plot(box, curves, axis, kind) {
    const width = Math.max(box.clientWidth, 200);
    const all = curves.flatMap(({ points, here }) => [...points, here]).filter(({ y }) => Number.isFinite(y));
    const drawing = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
    box.replaceChildren(drawing);
    if (!all.length) {
      return;
    }
    const xs = all.map(({ x }) => x);
    const horizontal = [Math.min(...xs), Math.max(...xs)];
    const vertical = verticalAxis(all.map(({ y }) => y), kind);
    const [left, right] = [MARGIN.left, width - MARGIN.right];
    const [top, bottom] = [MARGIN.top, HEIGHT - MARGIN.bottom];
    const toX = place({ range: horizontal, scale: Math.log }, left, right);
    const toY = place(vertical, bottom, top);
    const label = (x, y, anchor, text) => drawing.append(element("text", { x, y, "text-anchor": anchor }, text));
    const across = AXIS[axis](horizontal);
    across.tickvals.forEach((value, i) => {
      const x = toX(value);
      drawing.append(element("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "companion-widget-axis" }));
      label(x, HEIGHT - 6, x > right - 12 ? "end" : "middle", across.ticktext[i]);
    });
    vertical.tickvals.forEach((value, i) => {
      const y = toY(value);
      drawing.append(element("line", { x1: left, x2: right, y1: y, y2: y, class: "companion-widget-grid" }));
      label(left - 6, y + 4, "end", vertical.ticktext[i]);
    });
    const frame = `M${left} ${top}V${bottom}H${right}`;
    drawing.append(element("path", { d: frame, fill: "none", class: "companion-widget-axis" }));
    for (const { look, points, here } of curves) {
      const placed = points.map((point) => ({ ...point, at: [toX(point.x), toY(point.y)] }));
      const line = { fill: "none", stroke: look.color, "stroke-width": 2 };
      const drawn = ({ y }) => Number.isFinite(y);
      drawing.append(element("path", { d: path(placed, drawn), ...line, "stroke-dasharray": "5 4" }));
      drawing.append(element("path", { d: path(placed, (point) => drawn(point) && point.inside), ...line }));
      if (drawn(here)) {
        drawing.append(marker(look.symbol, [toX(here.x), toY(here.y)], look.color));
      }
    }
  }

  // ---- One small explorer

  function start(section) {
    const model = JSON.parse(section.querySelector("script[type='application/json']").textContent);
    const core = window.companionExplorerModel.create(model);
    const live = section.querySelector(".companion-widget-live");
    const box = section.querySelector(".companion-widget-drawing");
    const said = section.querySelector("[aria-live='polite']");
    const link = section.querySelector(".companion-widget-link");
    const inputOf = ({ key }) => document.getElementById(`${section.id}-${key}`);
    const plotted = model.rows.find(({ key }) => key === model.plotted);
    const axis = model.controls.find(({ name }) => name === model.axis);
    const setting = { ...model.default };
    const keys = { ...model.link };

    const pointOf = (chosen, { numbers, outside }) => ({
      x: chosen[model.axis],
      y: numbers[plotted.key],
      inside: !outside.some(({ of }) => of === plotted.of),
    });

    function draw(result) {
      const along = axis.steps.map(({ value }) => {
        const chosen = { ...setting, [model.axis]: value };
        return [chosen, core.evaluateTraining(chosen, false)];
      });
      const curves = model.architectures.map(({ name }) => ({
        look: model.look[name],
        points: along.map(([chosen, found]) => pointOf(chosen, found[name])),
        here: pointOf(setting, result[name]),
      }));
      plot(box, curves, model.axis, plotted.format);
    }

    function showControls() {
      for (const control of model.controls) {
        const step = control.steps.find(({ value }) => value === setting[control.name]);
        inputOf(control).setAttribute("aria-valuetext", step.text);
        document.getElementById(`${section.id}-${control.key}-value`).textContent = step.text;
        keys[control.key] = step.link;
      }
      showLink();
    }

    // Not before the page is loaded: the theme takes every address behind a # for that of a heading then
    let loaded = false;
    function showLink() {
      if (loaded) {
        const parts = Object.entries(keys).map(([key, value]) => `${key}=${value}`);
        link.href = `${link.getAttribute("href").split("#")[0]}#${parts.join("&")}`;
      }
    }
    window.addEventListener("load", () => {
      setTimeout(() => {
        loaded = true;
        showLink();
      });
    });

    let waiting = 0;
    function render() {
      waiting = 0;
      const result = core.evaluateTraining(setting);
      showControls();
      fillTable(section, model.rows, result);
      draw(result);
    }

    // One sentence, once the reader rests
    let speech = 0;
    function speak() {
      clearTimeout(speech);
      speech = setTimeout(() => {
        const rows = model.spoken.map((key) => model.rows.find((row) => row.key === key));
        const parts = Object.entries(core.evaluateTraining(setting, false)).map(([name, { numbers }]) => {
          const values = rows.map((row) => `${row.label} ${format[row.format](numbers[row.key])}`);
          return `${model.look[name].label}: ${values.join(", ")}`;
        });
        said.textContent = `${parts.join(". ")}.`;
      }, 1000);
    }

    for (const control of model.controls) {
      const input = inputOf(control);
      input.value = String(control.steps.findIndex(({ value }) => value === setting[control.name]));
      input.addEventListener("input", () => {
        setting[control.name] = control.steps[Number(input.value)].value;
        waiting ||= requestAnimationFrame(render);
        speak();
      });
    }
    section.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    section.companionWidget = { evaluate: core.evaluateTraining, setting: () => ({ ...setting }) };
    section.classList.add("companion-widget-on");
    live.hidden = false;
    render();
    let width = box.clientWidth;
    new ResizeObserver(() => {
      if (box.clientWidth !== width) {
        width = box.clientWidth;
        waiting ||= requestAnimationFrame(render);
      }
    }).observe(box);
  }

  for (const section of document.querySelectorAll(".companion-widget:not(.companion-widget-on)")) {
    start(section);
  }
})();
