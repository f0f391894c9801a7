// The plots of the explorer, drawn by plotly. Everywhere a solid line is inside of the data, a dashed one is not.
(function () {
  "use strict";

  const GIB = 2 ** 30;
  const POINTS = 90;
  const MARGIN = { l: 74, r: 12, t: 10, b: 44 };
  // Of the plots' type, in pixels: a letter on average, and a line
  const [LETTER, LINE] = [7, 18];
  const CONTEXTS = [256, 2 ** 20];
  const { contextText, ticks } = window.companionExplorerFormat;

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  const decadesAround = (values) => {
    const finite = values.filter((value) => Number.isFinite(value) && value > 0);
    const [low, high] = [Math.min(...finite), Math.max(...finite)].map(Math.log10);
    return [10 ** Math.floor(low), 10 ** Math.max(Math.ceil(high), Math.floor(low) + 1)];
  };

  function logAxis(title, range, marks) {
    return { type: "log", title: { text: title }, range: range.map(Math.log10), ...marks };
  }

  function contextAxis() {
    const values = [8, 10, 12, 14, 16, 18, 20].map((power) => 2 ** power);
    const marks = { tickmode: "array", tickvals: values, ticktext: values.map(contextText) };
    return logAxis("context T (tokens; 1k = 1,024)", [CONTEXTS[0] / 1.15, CONTEXTS[1] * 1.15], marks);
  }

  // Four contexts per doubling, whole chunks of 64
  function contexts() {
    const values = [];
    for (let quarter = 32; quarter <= 80; quarter++) {
      values.push(64 * Math.round(2 ** (quarter / 4) / 64));
    }
    return [...new Set(values)];
  }

  // A dashed line through all points and a solid one over those inside of the data.
  function lines(look, x, y, inside, text) {
    const line = { color: look.color, width: 2 };
    const common = { type: "scatter", mode: "lines", name: look.label, x };
    return [
      { ...common, y, text, line: { ...line, dash: "dash" }, hovertemplate: "%{text}<extra></extra>" },
      { ...common, y: y.map((value, i) => (inside[i] ? value : null)), line, hoverinfo: "skip" },
    ];
  }

  const mark = (look, x, y, open, text) => ({
    type: "scatter",
    mode: "markers",
    name: `${look.label}, ${open ? "optimum" : "model"}`,
    x: [x],
    y: [y],
    text: [text],
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      symbol: look.symbol + (open ? "-open" : ""),
      size: open ? 14 : 9,
      color: look.color,
      line: { width: open ? 2 : 0, color: look.color },
    },
  });

  const across = (y, ink) => ({
    type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: ink, width: 1.5 },
  });
  const upright = (x, ink) => ({
    type: "line", yref: "paper", y0: 0, y1: 1, x0: x, x1: x, opacity: 0.6, line: { color: ink, width: 1, dash: "dot" },
  });

  // Loss of every width of the family at the budget
  function lossCurve(core, architecture, setting, sizes) {
    const { law } = architecture;
    const { train_flops: C, context_length: T } = setting;
    const [low, high] = sizes.map((size) => Math.log(core.widthOf(architecture, size)));
    const curve = { num_params: [], num_tokens: [], loss: [], inside: [] };
    for (let i = 0; i <= POINTS; i++) {
      const width = Math.exp(low + ((high - low) * i) / POINTS);
      const N = core.numParams(architecture, width);
      const D = C / core.flopsPerToken(architecture, width, T);
      const numbers = { num_params: N, num_tokens: D, tokens_per_param: D / N };
      curve.num_params.push(N);
      curve.num_tokens.push(D);
      curve.loss.push(core.predict(law, N, D));
      curve.inside.push(!core.outside(architecture, numbers, setting).some((left) => left.of === "loss"));
    }
    return curve;
  }

  function lossPlot(core, model, setting, result, format) {
    const each = Object.values(result).map((one) => one.numbers);
    const optima = each.map((numbers) => numbers.optimal_num_params);
    const models = each.map((numbers) => numbers.num_params);
    const low = Math.max(Math.min(Math.min(...optima) / 30, Math.min(...models) / 1.5), 2.5e6);
    const high = Math.max(Math.max(...optima) * 30, Math.max(...models) * 1.5);
    const floor = Math.min(...each.map((numbers) => numbers.optimal_loss));
    const top = Math.max(floor + 0.5, ...each.map((numbers) => numbers.loss + 0.05));
    const data = model.architectures.flatMap((architecture) => {
      const look = model.look[architecture.name];
      const { numbers } = result[architecture.name];
      const curve = lossCurve(core, architecture, setting, [low, high]);
      const told = (N, D, loss) =>
        `${look.label}: N = ${format.count(N)}, D = ${format.count(D)}, loss ${format.loss(loss)}`;
      const text = curve.num_params.map((N, i) => told(N, curve.num_tokens[i], curve.loss[i]));
      const own = [numbers.num_params, numbers.num_tokens, numbers.loss];
      const best = [numbers.optimal_num_params, numbers.optimal_num_tokens, numbers.optimal_loss];
      return [
        ...lines(look, curve.num_params, curve.loss, curve.inside, text),
        mark(look, best[0], best[2], true, `optimum, ${told(...best)}`),
        mark(look, own[0], own[2], false, `model, ${told(...own)}`),
      ];
    });
    const x = logAxis("parameters N", [low, high], ticks([low, high], format.tickCount));
    const range = [Math.floor(floor * 10 - 0.5) / 10, Math.ceil(top * 10) / 10];
    return { data, x, y: { title: { text: "loss (nats/token)" }, range } };
  }

  // Compute-optimal loss over the GPU-hours that it takes, a hundred times less to a hundred times more than the budget
  function hoursPlot(core, model, setting, result, format) {
    const budgets = model.controls.find(({ name }) => name === "train_flops").steps.map(({ value }) => value);
    const [least, most] = [budgets[0], budgets[budgets.length - 1]];
    const flops = [];
    for (let tenth = -20; tenth <= 20; tenth++) {
      flops.push(Math.min(Math.max(setting.train_flops * 10 ** (tenth / 10), least), most));
    }
    const at = (C) => core.evaluateTraining({ ...setting, train_flops: C, tokens_per_param: null }, false);
    const along = [...new Set(flops)].map((C) => [C, at(C)]);
    const best = at(setting.train_flops);
    const data = [];
    for (const { name } of model.architectures.filter(({ utilization }) => utilization)) {
      const look = model.look[name];
      const told = (C, hours, loss) =>
        `${look.label}: C = ${format.flops(C)}, ${format.count(hours)} GPU-hours, loss ${format.loss(loss)}`;
      const points = along.map(([C, found]) => ({ C, ...found[name].numbers, left: found[name].outside }));
      const inside = points.map(({ left }) => !left.some(({ of }) => of === "optimum" || of === "utilization"));
      const [x, y] = ["train_gpu_hours", "loss"].map((key) => points.map((point) => point[key]));
      const text = points.map((point) => told(point.C, point.train_gpu_hours, point.loss));
      data.push(...lines(look, x, y, inside, text));
      for (const [open, { numbers }] of [[true, best[name]], [false, result[name]]]) {
        const place = [numbers.train_gpu_hours, numbers.loss];
        data.push(mark(look, ...place, open, `${open ? "optimum" : "model"}, ${told(setting.train_flops, ...place)}`));
      }
    }
    const all = (key) => data.flatMap((trace) => trace[key]).filter(Number.isFinite);
    const range = [Math.min(...all("x")) / 1.3, Math.max(...all("x")) * 1.3];
    const losses = [Math.floor(Math.min(...all("y")) * 10) / 10, Math.ceil(Math.max(...all("y")) * 10) / 10];
    const x = logAxis("GPU-hours of training", range, ticks(range, format.tickCount));
    return { data, x, y: { title: { text: "loss (nats/token)" }, range: losses } };
  }

  // Where the name of a horizontal line at `level` crosses the fewest curves: beside the line at one of its ends, or in
  // a corner that rising curves leave free
  function labelPlace(data, range, level, name, id) {
    const box = document.getElementById(id);
    const width = Math.max(box.clientWidth - MARGIN.l - MARGIN.r, 1);
    const height = Math.max(box.clientHeight - MARGIN.t - MARGIN.b, 1);
    const [left, right] = [CONTEXTS[0] / 1.15, CONTEXTS[1] * 1.15].map(Math.log);
    const [low, high] = range.map(Math.log);
    const across = (x) => ((Math.log(x) - left) / (right - left)) * width;
    const up = (y) => ((Math.log(y) - low) / (high - low)) * height;
    const inCorner = `― ${name}`; // away from the line it says that a line is meant
    const [wide, tall] = [Math.min(LETTER * inCorner.length, width), LINE];
    const line = up(level);
    const places = [
      [0, line, "left", "bottom"],
      [width - wide, line - tall, "right", "top"],
      [0, line - tall, "left", "top"],
      [width - wide, line, "right", "bottom"],
      [0, height - tall, "left", "top", inCorner],
      [width - wide, 0, "right", "bottom", inCorner],
    ].filter(([, bottom]) => bottom >= -1 && bottom + tall <= height + 1);
    const crossings = ([x, bottom]) => {
      const inside = (at, value) => at > x - 4 && at < x + wide + 4 && value > bottom - 3 && value < bottom + tall + 3;
      const onLine = bottom < line - 1 && bottom + tall > line + 1 ? POINTS : 0;
      return onLine + sum(data.map((trace) => sum(between(trace, across, up).map(([a, b]) => (inside(a, b) ? 1 : 0)))));
    };
    const counted = places.map((place) => [crossings(place), place]);
    const [, best] = counted.reduce((one, other) => (other[0] < one[0] ? other : one));
    const [, bottom, xanchor, yanchor, text = name] = best;
    const share = (yanchor === "top" ? bottom + tall : bottom) / height;
    return { xref: "paper", yref: "paper", x: xanchor === "left" ? 0.01 : 0.99, xanchor, y: share, yanchor, text };
  }

  // Points along a curve in pixels, no further apart than a few of them
  function between({ x, y }, across, up) {
    const points = x.map((at, i) => [across(at), up(y[i])]).filter((point) => point.every(Number.isFinite));
    return points.flatMap(([a, b], i) => {
      const [c, e] = points[i + 1] ?? [a, b];
      return [0, 0.25, 0.5, 0.75].map((share) => [a + share * (c - a), b + share * (e - b)]);
    });
  }

  // TTFT, step time and memory of the model at every context
  function servePlots(core, model, setting, result, format, ink) {
    const target = core.hardware[setting.hardware];
    const T = contexts();
    const plots = { ttft: [], step: [], memory: [] };
    for (const architecture of model.architectures) {
      const look = model.look[architecture.name];
      const { numbers } = result[architecture.name];
      const shapes = core.shapesAt(architecture.family, core.widthOf(architecture, numbers.num_params));
      const points = T.map((length) => ({
        ...core.serve(architecture, shapes, length, setting.batch_size, target),
        left: core.outside(architecture, numbers, { ...setting, context_length: length }).map((entry) => entry.of),
      }));
      const curves = {
        ttft: [points.map((point) => point.ttft.value), "ttft", format.duration, numbers.ttft_s],
        step: [points.map((point) => point.step.value), "step_time", format.duration, numbers.step_time_s],
        memory: [points.map((point) => point.memory / GIB), "", format.gib, numbers.memory_bytes / GIB],
      };
      for (const [name, [y, of, write, own]] of Object.entries(curves)) {
        const told = (length, value) => `${look.label}, T = ${contextText(length)}: ${write(value)}`;
        const inside = points.map((point) => !of || !point.left.includes(of));
        const text = y.map((value, i) => told(T[i], value));
        plots[name].push(...lines(look, T, y, inside, text));
        plots[name].push(mark(look, setting.context_length, own, false, told(setting.context_length, own)));
      }
    }
    const rangeOf = (data, more = []) => decadesAround([...data.flatMap((trace) => trace.y), ...more]);
    const axis = (title, range, text) => logAxis(title, range, ticks(range, text));
    const here = upright(setting.context_length, ink);
    const has = target.memory_bytes / GIB;
    const memoryRange = rangeOf(plots.memory, [has]);
    const name = `${target.label}: ${format.gib(has)}`;
    const place = labelPlace(plots.memory, memoryRange, has, name, "explorer-plot-memory");
    const time = (title, data) => {
      const y = axis(title, rangeOf(data), format.tickDuration);
      return { data, x: contextAxis(), y, shapes: [here] };
    };
    return {
      ttft: time("time to first token", plots.ttft),
      step: time("step time", plots.step),
      memory: {
        data: plots.memory,
        x: contextAxis(),
        y: axis("memory (GiB)", memoryRange, format.tick),
        shapes: [here, across(has, ink)],
        annotations: [{ ...place, showarrow: false, borderpad: 0 }],
      },
    };
  }

  // Colors and type of the page, light or dark
  function lookOfPage(section) {
    const style = getComputedStyle(section);
    const root = getComputedStyle(document.documentElement);
    const variable = (name, otherwise) => root.getPropertyValue(name).trim() || otherwise;
    return {
      ink: style.color,
      font: style.fontFamily,
      grid: variable("--companion-grid", "#8884"),
      surface: variable("--pst-color-surface", "#888"),
    };
  }

  function layoutOf({ x, y, shapes = [], annotations = [] }, page) {
    const axis = { gridcolor: page.grid, linecolor: page.ink, tickcolor: page.ink, ticks: "outside", zeroline: false };
    const fixed = { ...axis, fixedrange: true, showline: true };
    return {
      autosize: true,
      showlegend: false,
      dragmode: false,
      hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: page.font, size: 12, color: page.ink },
      hoverlabel: { bgcolor: page.surface, bordercolor: page.ink, font: { color: page.ink } },
      margin: MARGIN,
      xaxis: { ...fixed, ...x, title: { ...x.title, standoff: 6 } },
      yaxis: { ...fixed, ...y, title: { ...y.title, standoff: 8 } },
      shapes,
      annotations,
    };
  }

  function draw(section, core, model, setting, result, format) {
    const page = lookOfPage(section);
    const plots = {
      loss: lossPlot(core, model, setting, result, format),
      ...(document.getElementById("explorer-plot-hours") && { hours: hoursPlot(core, model, setting, result, format) }),
      ...servePlots(core, model, setting, result, format, page.ink),
    };
    const config = { displayModeBar: false, responsive: true, scrollZoom: false };
    for (const [name, plot] of Object.entries(plots)) {
      window.Plotly.react(`explorer-plot-${name}`, plot.data, layoutOf(plot, page), config);
    }
  }

  window.companionExplorerPlots = { draw };
})();
