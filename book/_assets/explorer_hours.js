// GPU-hours in the explorer: what training takes by the utilization that logs show, the least for one loss, and words on
// both. Every function mirrors one of `companion.explorer.hours`, or the one named in its comment.
(function () {
  "use strict";

  const clip = (value, low, high) => Math.min(Math.max(value, low), high);
  const [NO_LOGS, NOT_REACHED] = ["no logs", "not reached"];

  // companion.training.measured.SizeCurve.at: mean and variance of ln(utilization)
  function onCurve({ sizes, center, coefficients, covariance, residual_variance }, N) {
    const x = Math.log(clip(N, ...sizes)) - center;
    const powers = coefficients.map((_, k) => x ** (coefficients.length - 1 - k));
    let [mean, variance] = [0, residual_variance];
    powers.forEach((power, i) => {
      mean += power * coefficients[i];
      powers.forEach((other, j) => {
        variance += power * covariance[i][j] * other;
      });
    });
    return { mean, variance };
  }

  // companion.training.measured.MeasuredUtilization.at
  function utilizationAt({ curves }, N, T) {
    const lengths = curves.map(({ context_length }) => Math.log(context_length));
    const last = lengths.length - 1;
    const place = clip(Math.log(T), lengths[0], lengths[last]);
    const above = clip(lengths.findIndex((length) => length >= place), 1, Math.max(last, 1));
    const pair = curves.slice(above - 1, above + 1);
    const share = pair.length === 2 ? (place - lengths[above - 1]) / (lengths[above] - lengths[above - 1]) : 0;
    const used = pair
      .map((curve, i) => ({ curve, weight: i ? share : 1 - share }))
      .filter(({ weight }) => weight > 0);
    let [mean, variance] = [0, 0];
    used.forEach(({ curve, weight }) => {
      const part = onCurve(curve, N);
      mean += weight * part.mean;
      variance += weight * part.variance;
    });
    const reach = Math.max(...used.map(({ curve }) => curve.quantile)) * Math.sqrt(variance);
    const [value, low, high] = [mean, mean - reach, mean + reach].map((each) => Math.min(Math.exp(each), 1));
    return { value, low, high };
  }

  // `tools` are functions of explorer_model.js
  function create(model, tools) {
    const { hardware, lawsOf, geometryFor, bisect, isEnd, isOutside, interval } = tools;
    const gpuHours = (C, share, setting) => C / (share * hardware[setting.hardware].peak_flops_per_s) / 3600;

    // companion.explorer.ranges.beyond
    const beyond = (of, limits, values) =>
      Object.entries(limits)
        .filter(([name, range]) => isOutside(values[name], range))
        .map(([name, [low, high]]) => ({ of, name, value: values[name], low, high }));

    function beyondLogs({ utilization }, N, setting, of) {
      if (!utilization) {
        return [];
      }
      const { curves } = utilization;
      const lengths = curves.map(({ context_length }) => context_length);
      const range = [lengths[0], lengths[lengths.length - 1]];
      const inside = clip(setting.context_length, ...range);
      const below = curves.filter((one) => one.context_length <= inside);
      const used = [below[below.length - 1], curves.find((one) => one.context_length >= inside)];
      const sizes = [Math.max(...used.map((one) => one.sizes[0])), Math.min(...used.map((one) => one.sizes[1]))];
      const values = { logged_params: N, logged_context: setting.context_length };
      const found = beyond(of, { logged_params: sizes, logged_context: range }, values);
      const logged = model.logs_hardware;
      if (setting.hardware !== logged) {
        found.push({ of, name: "hardware", value: setting.hardware, low: logged, high: logged });
      }
      return found;
    }

    function ofModel(architecture, N, setting) {
      const { utilization } = architecture;
      if (!utilization) {
        const missing = { utilization: NO_LOGS, train_gpu_hours: NO_LOGS };
        return { numbers: { utilization: null, train_gpu_hours: null }, intervals: {}, outside: [], missing };
      }
      const { value, low, high } = utilizationAt(utilization, N, setting.context_length);
      const taken = [value, high, low].map((share) => gpuHours(setting.train_flops, share, setting));
      return {
        numbers: { utilization: value, train_gpu_hours: taken[0] },
        intervals: { utilization: [low, high], train_gpu_hours: taken.slice(1) },
        outside: beyondLogs(architecture, N, setting, "utilization"),
        missing: {},
      };
    }

    // companion.laws.compute_for_loss, for one law; LossSurface.tokens_for
    function cheapest(law, geometry, loss) {
      const excess = Math.max(loss - law.E, 0) ** (1 / law.gamma);
      const logB = Math.log(law.B);
      const logTokens = (logN) => {
        const rest = excess - law.A * Math.exp(-law.alpha * logN);
        return rest > 0 ? (logB - Math.log(rest)) / law.beta : Infinity;
      };
      const apart = Math.log(law.beta) + logB - Math.log(law.alpha * law.A);
      const x = bisect((at) => {
        const g = geometry(at);
        return apart - law.beta * logTokens(g.logN) + law.alpha * g.logN + g.prices - g.sizes;
      });
      const { N, F, logN } = geometry(x);
      const D = isEnd(x) ? NaN : Math.exp(logTokens(logN));
      return { train_flops: F * D, num_params: N, num_tokens: D, tokens_per_param: D / N };
    }

    // What reaching the loss takes; `samples` under each law of the bootstrap, NaN where one never does
    function reach(architecture, loss, setting) {
      const { utilization } = architecture;
      const geometry = geometryFor(architecture, setting.context_length);
      const found = cheapest(architecture.law, geometry, loss);
      if (!Number.isFinite(found.train_flops)) {
        return { found: null, hours: null, samples: [] };
      }
      if (!utilization) {
        return { found, hours: null, samples: [] };
      }
      const hours = (best, drawn) => {
        const { value, low } = utilizationAt(utilization, best.num_params, setting.context_length);
        return gpuHours(best.train_flops, Math.min(value * (value / low) ** drawn, 1), setting);
      };
      const again = lawsOf.get(architecture.name).map((law) => cheapest(law, geometry, loss));
      return { found, hours: hours(found, 0), samples: again.map((best, r) => hours(best, utilization.scatter[r])) };
    }

    // companion.fitting.bootstrap.interval_with_lost: null where too many are lost
    function intervalWithLost(samples) {
      const lost = samples.filter((value) => !Number.isFinite(value)).length / samples.length;
      const { level } = model;
      return !samples.length || lost >= 1 - level - 1e-9
        ? null
        : interval(samples, 1 - (1 - level - lost) / (1 - lost));
    }

    const withInterval = (name, samples) => {
      const bounds = intervalWithLost(samples);
      return bounds ? { [name]: bounds } : {};
    };

    function ofTarget(architecture, reached, loss, setting) {
      const { found, hours, samples } = reached;
      const numbers = { target_loss: loss, target_gpu_hours: hours };
      if (!found) {
        const lost = ["target_num_params", "target_train_flops", "target_gpu_hours"];
        const all = (value) => Object.fromEntries(lost.map((name) => [name, value]));
        return { numbers: { ...numbers, ...all(null) }, intervals: {}, outside: [], missing: all(NOT_REACHED) };
      }
      const values = { ...found, context_length: setting.context_length };
      return {
        numbers: { ...numbers, target_num_params: found.num_params, target_train_flops: found.train_flops },
        intervals: withInterval("target_gpu_hours", samples),
        outside: [
          ...beyond("target", architecture.ranges.optimum, values),
          ...beyondLogs(architecture, found.num_params, setting, "target_logs"),
        ],
        missing: hours === null ? { target_gpu_hours: NO_LOGS } : {},
      };
    }

    function ratioOf(own, first) {
      const name = "target_gpu_hours_ratio";
      if (own.hours === null || first.hours === null) {
        const missing = { [name]: own.found ? NO_LOGS : NOT_REACHED };
        return { numbers: { [name]: null }, intervals: {}, outside: [], missing };
      }
      const number = Math.min(own.samples.length, first.samples.length);
      const ratios = own.samples.slice(0, number).map((hours, r) => hours / first.samples[r]);
      const intervals = own === first ? {} : withInterval(name, ratios);
      return { numbers: { [name]: own === first ? 1 : own.hours / first.hours }, intervals, outside: [], missing: {} };
    }

    const joined = (parts, name) => Object.assign({}, ...parts.map((part) => part[name]));

    // All results of a setting with their GPU-hours
    function withHours(results, setting) {
      const [first] = model.architectures;
      const { loss } = results[first.name].numbers;
      const reached = new Map(model.architectures.map((one) => [one.name, reach(one, loss, setting)]));
      const found = model.architectures.map((one) => {
        const own = reached.get(one.name);
        const parts = [
          ofModel(one, results[one.name].numbers.num_params, setting),
          ofTarget(one, own, loss, setting),
          ratioOf(own, reached.get(first.name)),
        ];
        return [one.name, parts];
      });
      const targets = Object.fromEntries(found.map(([name, [, target]]) => [name, target.outside]));
      return Object.fromEntries(
        found.map(([name, parts]) => {
          const result = results[name];
          const left = name === first.name ? [] : [...targets[name], ...targets[first.name]];
          const ofRatio = left.map((entry) => ({ ...entry, of: "ratio" }));
          return [
            name,
            {
              ...result,
              numbers: { ...result.numbers, ...joined(parts, "numbers") },
              intervals: { ...result.intervals, ...joined(parts, "intervals") },
              outside: [...result.outside, ...parts.flatMap((part) => part.outside), ...ofRatio],
              missing: joined(parts, "missing"),
            },
          ];
        }),
      );
    }

    return { ofModel, withHours };
  }

  // ---- Words

  // What no log and no law stands behind, as entries of the explorer's notes
  function notes(model, core, setting, result, words, format) {
    const found = [];
    const label = (name) => model.look[name].label;
    const ofLogs = { logged_params: "num_params", logged_context: "context_length" };
    // Each place once, though several numbers depend on it
    const placesOf = (entries, data, where) => {
      const places = new Map();
      for (const { of, name: what, value, low, high } of entries) {
        const [symbol, write] = words[ofLogs[what] ?? what];
        const place = `${symbol} = ${write(value)}`;
        if (!places.has(place)) {
          places.set(place, `${place}${where[of] ?? ""} (${data}: ${write(low)} to ${write(high)})`);
        }
      }
      return [...places.values()].join(", ");
    };
    for (const { name, law } of model.architectures) {
      const { numbers, intervals, outside, missing } = result[name];
      const entries = outside.filter(({ of, name: what }) => of !== "ratio" && what !== "hardware");
      const logged = entries.filter((entry) => Object.hasOwn(ofLogs, entry.name));
      if (logged.length) {
        const places = placesOf(logged, "logs", { target_logs: " at the loss to reach" });
        found.push(["open", `${label(name)}: the utilization is that of the nearest logged model, not of ${places}.`]);
      }
      const known = new Set(entries.filter(({ of }) => of === "loss" || of === "optimum").map((entry) => entry.name));
      const further = entries.filter(({ of, name: what }) => of === "target" && !known.has(what));
      if (further.length) {
        const places = placesOf(further, "data", {});
        found.push(["open", `${label(name)} at the loss to reach is outside the data in ${places}.`]);
      }
      const loss = `a loss of ${format.loss(numbers.target_loss)}`;
      if (missing.target_num_params) {
        const why = numbers.target_loss > law.E ? "within these widths" : `whose floor is ${format.loss(law.E)}`;
        found.push(["open", `${label(name)} does not reach ${loss} by its law, ${why}.`]);
      } else if (numbers.target_gpu_hours !== null && !intervals.target_gpu_hours) {
        found.push(["open", `${label(name)}: too few resampled laws reach ${loss} for an interval of GPU-hours.`]);
      }
    }
    const logs = model.architectures.some(({ utilization }) => utilization);
    if (logs && setting.hardware !== model.logs_hardware) {
      const [here, there] = [setting.hardware, model.logs_hardware].map((each) => core.hardware[each].label);
      found.push(["open", `GPU-hours on ${here} take the utilization that was logged on ${there}.`]);
    }
    return found;
  }

  window.companionExplorerHours = { create, notes };
})();
