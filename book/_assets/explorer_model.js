// The numbers of the explorer, computed in the page. `model` is the JSON of `companion.explorer.Explorer.model`: counts
// come in it as polynomials, made by the package (`companion.accounting.polynomials`), which `explorer_counts.js` reads.
// Every other function mirrors one of the package, named in its comment; a browser test compares both.
(function () {
  "use strict";

  const { sum, shapesAt, ofWidth, compiled, atContext, countPasses, roofline, runtimeFeatures } = window.companionExplorerCounts;

  // np.quantile, linear, of the finite values
  function interval(samples, level) {
    const sorted = samples.filter(Number.isFinite).sort((x, y) => x - y);
    return [(1 - level) / 2, (1 + level) / 2].map((share) => {
      const place = (sorted.length - 1) * share;
      const below = Math.floor(place);
      const above = Math.min(below + 1, sorted.length - 1);
      return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
    });
  }

  // The laws of a bootstrap, one by one: lists by parameter, or packed by companion.explorer.training_model
  function resampledLaws(laws) {
    const { names = Object.keys(laws), samples } = laws;
    if (typeof samples !== "string") {
      return laws[names[0]].map((_, r) => Object.fromEntries(names.map((name) => [name, laws[name][r]])));
    }
    const data = new DataView(Uint8Array.from(atob(samples), (sign) => sign.charCodeAt(0)).buffer);
    const at = (r, k) => data.getFloat32(4 * (r * names.length + k), true);
    const number = data.byteLength / (4 * names.length);
    return Array.from({ length: number }, (_, r) => Object.fromEntries(names.map((name, k) => [name, at(r, k)])));
  }

  function create(model) {
    const hardware = Object.fromEntries(model.hardware.map((entry) => [entry.name, entry]));
    const { smallest, largest, difference_step: step } = model.search;
    const lowest = Math.log(smallest);
    const highest = Math.log(largest);

    // companion.runs.shape_family.bisect: ln d_model of the root of an increasing function
    function bisect(rises) {
      let [low, high] = [lowest, highest];
      for (let i = 0; i < 50; i++) {
        const middle = 0.5 * (low + high);
        if (rises(middle) < 0) {
          low = middle;
        } else {
          high = middle;
        }
      }
      return 0.5 * (low + high);
    }

    const countsOf = new Map(
      [...model.architectures, ...model.counted].map(({ name, counts, family }) => [
        name,
        {
          ...Object.fromEntries(Object.entries(counts).map(([count, sums]) => [count, compiled(sums)])),
          size: ofWidth(counts.num_params[0], family, {}),
        },
      ]),
    );

    const numParams = ({ name }, d) => countsOf.get(name).size(Math.log(d));

    // All FLOPs of a forward pass at one context
    const forwards = new Map();
    function forwardAt({ name, counts, family }, T) {
      const key = `${name} ${T}`;
      if (!forwards.has(key)) {
        if (forwards.size > 15) {
          forwards.clear();
        }
        const terms = ["products", "core", "unembedding"].flatMap((count) => counts[count][0]);
        forwards.set(key, ofWidth(terms, family, atContext({}, T, model.convention.chunk_size)));
      }
      return forwards.get(key);
    }

    // ShapeFamily.flops_per_token
    const flopsPerToken = (one, d, T) =>
      ((1 + model.convention.backward_factor) * forwardAt(one, T)(Math.log(d))) / T;

    // ShapeFamily.width_of
    const widthOf = (one, size) => Math.exp(bisect((x) => Math.log(numParams(one, Math.exp(x)) / size)));

    // LossSurface.predict
    const predict = (law, N, D) => law.E + (law.A * N ** -law.alpha + law.B * D ** -law.beta) ** law.gamma;

    // What the optimum of any law needs of a width; the laws of a bootstrap share most widths they look at.
    function geometryOf(one, T) {
      const known = new Map();
      return (x) => {
        if (!known.has(x)) {
          const [up, down] = [Math.exp(x + step), Math.exp(x - step)];
          const sizes = Math.log(numParams(one, up) / numParams(one, down)) / (2 * step);
          const prices = Math.log(flopsPerToken(one, up, T) / flopsPerToken(one, down, T)) / (2 * step);
          const N = numParams(one, Math.exp(x));
          const F = flopsPerToken(one, Math.exp(x), T);
          const logs = { logN: Math.log(N), logF: Math.log(F), sizes: Math.log(sizes), prices: Math.log(prices) };
          known.set(x, { N, F, ...logs });
        }
        return known.get(x);
      };
    }

    const isEnd = (x) => Math.exp(x) < smallest * (1 + 1e-6) || Math.exp(x) > largest * (1 - 1e-6);

    // companion.laws.optimum, for one law
    function optimum(law, geometry, C) {
      const ofTokens = Math.log(law.beta * law.B);
      const ofSize = Math.log(law.alpha * law.A);
      const preference = (x) => {
        const g = geometry(x);
        const fromTokens = ofTokens - law.beta * (Math.log(C) - g.logF) + g.prices;
        return fromTokens - (ofSize - law.alpha * g.logN + g.sizes);
      };
      const x = bisect(preference);
      const atEnd = isEnd(x);
      const { N, F } = geometry(x);
      const D = atEnd ? NaN : C / F;
      return { num_params: atEnd ? NaN : N, num_tokens: D, tokens_per_param: D / N, loss: predict(law, N, D) };
    }

    // companion.runs.shape_family.FamilyScale.num_params
    function sizeFor(one, T, C, ratio) {
      const target = Math.log(C / ratio);
      const cost = (x) => Math.log(flopsPerToken(one, Math.exp(x), T) * numParams(one, Math.exp(x)));
      return numParams(one, Math.exp(bisect((x) => cost(x) - target)));
    }

    // RuntimeModel.predict and RuntimeModel.samples
    function seconds(runtime, features, target, withSamples) {
      const timed = hardware[runtime.hardware];
      const speed = {
        compute: timed.peak_flops_per_s / target.peak_flops_per_s,
        memory: timed.peak_bytes_per_s / target.peak_bytes_per_s,
      };
      const sizes = runtime.terms.map((term) => features[term.name] * (speed[term.kind] ?? 1));
      const under = (coefficients) => sum(sizes.map((size, k) => size * coefficients[k]));
      return {
        value: under(runtime.coefficients),
        samples: withSamples ? runtime.resamples.map((row, r) => under(row) * runtime.scatter[r]) : [],
      };
    }

    // The served model at a context and batch: times, memory, bytes
    function serve(architecture, shapes, T, B, target, withSamples = false) {
      const passes = countPasses(countsOf.get(architecture.name), shapes, T, B, model);
      const features = runtimeFeatures(shapes, T, B, target, passes);
      return {
        passes,
        ttft: seconds(architecture.ttft, features, target, withSamples),
        step: seconds(architecture.step_time, features, target, withSamples),
        memory: Math.max(passes.prefill.memory, passes.step.memory),
      };
    }

    const isOutside = (value, [low, high]) => value > high * (1 + model.margin) || value < low * (1 - model.margin);

    function outside(architecture, numbers, setting) {
      const { train_flops, context_length, batch_size } = setting;
      const trained = (prefix) => ({
        ...Object.fromEntries(
          ["num_params", "num_tokens", "tokens_per_param"].map((name) => [name, numbers[prefix + name]]),
        ),
        train_flops,
        context_length,
      });
      const batch_tokens = context_length * batch_size;
      const served = { num_params: numbers.num_params, context_length, batch_size, batch_tokens };
      const values = { loss: trained(""), optimum: trained("optimal_"), ttft: served, step_time: served };
      return Object.entries(architecture.ranges).flatMap(([of, limits]) =>
        Object.entries(limits)
          .filter(([name, range]) => isOutside(values[of][name], range))
          .map(([name, [low, high]]) => ({ of, name, value: values[of][name], low, high })),
      );
    }

    const geometries = new Map();
    function geometryFor(architecture, T) {
      const key = `${architecture.name} ${T}`;
      if (!geometries.has(key)) {
        if (geometries.size > 3) {
          geometries.clear(); // a few contexts at a time are enough, and memory stays small
        }
        geometries.set(key, geometryOf(architecture, T));
      }
      return geometries.get(key);
    }

    const lawsOf = new Map(model.architectures.map(({ name, laws }) => [name, resampledLaws(laws)]));

    // The part of companion.explorer.Explorer.evaluate that is about training, for one architecture: numbers, and with
    // `withSamples` what they are under each law of the bootstrap
    function train(architecture, setting, withSamples) {
      const { train_flops: C, context_length: T, tokens_per_param: ratio } = setting;
      const { law } = architecture;
      const geometry = geometryFor(architecture, T);
      const best = optimum(law, geometry, C);
      const N = ratio === null ? best.num_params : sizeFor(architecture, T, C, ratio);
      const D = ratio === null ? best.num_tokens : ratio * N;
      const excess = (loss, least) => Math.max(loss - least, 0);
      const loss = predict(law, N, D);
      const numbers = {
        num_params: N,
        num_tokens: D,
        tokens_per_param: D / N,
        loss,
        excess_loss: ratio === null ? 0 : excess(loss, best.loss),
        ...Object.fromEntries(Object.entries(best).map(([name, value]) => [`optimal_${name}`, value])),
        optimal_flops_per_token: C / best.num_tokens,
      };
      const samples = {};
      if (withSamples) {
        const each = lawsOf.get(architecture.name);
        const bests = each.map((one) => optimum(one, geometry, C));
        samples.loss = each.map((one) => predict(one, N, D));
        samples.excess_loss = samples.loss.map((one, r) => excess(one, bests[r].loss));
        for (const name of Object.keys(best)) {
          samples[`optimal_${name}`] = bests.map((one) => one[name]);
        }
      }
      return { numbers, samples };
    }

    const tools = { hardware, lawsOf, geometryFor, bisect, isEnd, isOutside, interval };
    const hours = window.companionExplorerHours.create(model, tools);

    const intervalsOf = (samples) =>
      Object.fromEntries(Object.entries(samples).map(([name, values]) => [name, interval(values, model.level)]));

    // Training alone: all that a chapter's small explorer shows, with GPU-hours where its data have the utilization
    function evaluateTraining(setting, withIntervals = true) {
      const one = (architecture) => {
        const { numbers, samples } = train(architecture, setting, withIntervals);
        const found = { numbers, intervals: intervalsOf(samples), outside: outside(architecture, numbers, setting) };
        if (architecture.utilization === undefined) {
          return found;
        }
        const taken = hours.ofModel(architecture, numbers.num_params, setting);
        return {
          numbers: { ...numbers, ...taken.numbers },
          intervals: { ...found.intervals, ...(withIntervals ? taken.intervals : {}) },
          outside: [...found.outside, ...taken.outside],
          missing: taken.missing,
        };
      };
      return Object.fromEntries(model.architectures.map((architecture) => [architecture.name, one(architecture)]));
    }

    // companion.explorer.Explorer.evaluate, for one architecture, without its GPU-hours
    function evaluateOne(architecture, setting) {
      const { context_length: T, batch_size: B } = setting;
      const target = hardware[setting.hardware];
      const { numbers: trained, samples } = train(architecture, setting, true);
      const shapes = shapesAt(architecture.family, widthOf(architecture, trained.num_params));
      const { passes, ttft, step: stepTime, memory } = serve(architecture, shapes, T, B, target, true);
      const numbers = { ...trained, ttft_s: ttft.value, step_time_s: stepTime.value, ...counted(passes, target) };
      const intervals = intervalsOf({ ...samples, ttft_s: ttft.samples, step_time_s: stepTime.samples });
      return {
        numbers,
        intervals,
        fits: memory <= target.memory_bytes,
        outside: outside(architecture, numbers, setting),
        below_roofline: ["ttft", "step_time"].filter((of) => numbers[`${of}_s`] < numbers[`${of}_roofline_s`]),
      };
    }

    // companion.explorer._counted_numbers
    const counted = (passes, target) => ({
      ttft_roofline_s: roofline(passes.prefill, target),
      step_time_roofline_s: roofline(passes.step, target),
      memory_bytes: Math.max(passes.prefill.memory, passes.step.memory),
      weight_bytes: passes.weightBytes,
      cache_bytes: passes.cacheBytes,
    });

    // companion.explorer.Explorer.count
    function count(setting) {
      const { train_flops: C, context_length: T, batch_size: B } = setting;
      const [first] = model.architectures;
      const ratio = setting.tokens_per_param ?? optimum(first.law, geometryFor(first, T), C).tokens_per_param;
      return Object.fromEntries(
        model.counted.map((one) => {
          const N = sizeFor(one, T, C, ratio);
          const shapes = shapesAt(one.family, widthOf(one, N));
          const passes = countPasses(countsOf.get(one.name), shapes, T, B, model);
          const numbers = counted(passes, hardware[setting.hardware]);
          return [one.name, { num_params: N, num_tokens: ratio * N, tokens_per_param: ratio, ...numbers }];
        }),
      );
    }

    const evaluate = (setting) =>
      hours.withHours(
        Object.fromEntries(model.architectures.map((one) => [one.name, evaluateOne(one, setting)])),
        setting,
      );

    const shapes = { shapesAt, widthOf, numParams };
    return { evaluate, evaluateTraining, count, ...shapes, flopsPerToken, predict, serve, outside, hardware };
  }

  window.companionExplorerModel = { create };
})();
