// Numbers as text, for the explorer and its small forms in chapters: companion.formatting and
// companion.plotting.explorer_page.FORMATS. And the ticks of an axis.
(function () {
  "use strict";

  function significant(value, digits = 3) {
    if (!Number.isFinite(value)) {
      return "undefined";
    }
    const magnitude = value === 0 ? 0 : Number(value.toExponential(digits - 1).split("e")[1]);
    const places = digits - 1 - magnitude;
    return places >= 0 ? value.toFixed(places) : String(Math.round(value / 10 ** -places) * 10 ** -places);
  }

  function count(value) {
    const prefixes = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];
    const rounded = Number(value.toExponential(2));
    const [size, letter] = prefixes.find(([least]) => rounded >= least) ?? [1, ""];
    return significant(value / size) + letter;
  }

  function duration(seconds) {
    if (seconds < 0.9995) {
      return `${significant(1e3 * seconds)} ms`;
    }
    return seconds < 3600 ? `${significant(seconds)} s` : `${significant(seconds / 3600)} h`;
  }

  // companion.plotting.explorer_page.between
  function between(low, high) {
    const [number, unit] = low.split(" ");
    return `${unit && high.endsWith(` ${unit}`) ? number : low} to ${high}`;
  }

  // companion.formatting.power_of_ten
  function powerOfTen(value, digits = 2) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    const raise = (digit) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(digit)];
    const raised = String(Number(exponent)).replace(/./g, raise);
    return `${Number.isInteger(Number(mantissa)) ? Number(mantissa) : mantissa}×10${raised}`;
  }

  const gib = (value) => `${significant(value)} GiB`;
  const tickCount = (value) => count(value).replace(/\.0+(?=\D|$)/, "");
  const tick = (value) => Number(value.toPrecision(3)).toLocaleString("en");
  const format = {
    count,
    loss: (value) => value.toFixed(3),
    ratio: (value) => significant(value),
    share: (value) => `${significant(100 * value, 2)} %`,
    duration,
    flops: (value) => powerOfTen(value, 3),
    bytes: (value) => gib(value / 2 ** 30),
    gib,
    // of ticks, which are round: 20 ms, 10k s, 1B, 10,000
    tickDuration: (seconds) => (seconds < 1 ? `${tick(1e3 * seconds)} ms` : `${tickCount(seconds)} s`),
    tickCount,
    tick,
  };

  // Number, interval and a note in every cell of a table that names a row and an architecture
  function fillTable(section, rows, result) {
    const byKey = Object.fromEntries(rows.map((row) => [row.key, row]));
    for (const cell of section.querySelectorAll("td[data-key]")) {
      const { numbers, intervals, outside, missing } = result[cell.dataset.architecture];
      const { key, of, format: kind } = byKey[cell.dataset.key];
      const [value, interval, flag] = cell.children;
      const bounds = intervals[key];
      value.textContent = numbers[key] === null ? "–" : format[kind](numbers[key]);
      interval.textContent = bounds ? between(...bounds.map((bound) => format[kind](bound))) : "";
      flag.textContent = missing?.[key] ?? (outside.some((left) => of.split(" ").includes(left.of)) ? "extrapolated" : "");
    }
  }

  // Decades; with few of them 2 and 5 in between; with many only every second or third.
  function ticks([low, high], text) {
    const decades = Math.round(Math.log10(high / low));
    const every = Math.ceil(decades / 5);
    const values = [];
    for (let power = Math.floor(Math.log10(low) + 1e-9); power <= Math.log10(high) + 1e-9; power++) {
      for (const digit of decades <= 2 ? [1, 2, 5] : [1]) {
        const value = Number(`${digit}e${power}`);
        if (power % every === 0 && value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) {
          values.push(value);
        }
      }
    }
    return { tickmode: "array", tickvals: values, ticktext: values.map(text) };
  }

  // Numbers of tokens as the field writes them: 16k is 16,384
  function contextText(value) {
    if (value < 1024) {
      return String(value);
    }
    return value < 2 ** 20 ? `${value / 1024}k` : `${value / 2 ** 20}M`;
  }

  window.companionExplorerFormat = { format, fillTable, powerOfTen, ticks, contextText };
})();
