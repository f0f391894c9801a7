// The numbers of the explorer, computed in the page. Every function mirrors one of the package, named in its comment;
// a browser test compares both. `model` is the JSON of `companion.explorer.Explorer.model`.
(function () {
  "use strict";

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const isXlstm = (shapes) => shapes.name === "xlstm";

  // companion.runs.shape_family.ShapeFamily.shapes
  function shapesAt(family, d) {
    const hv = family.head_width * d ** family.head_width_exponent;
    return {
      name: family.architecture,
      d,
      layers: family.depth * d ** family.depth_exponent,
      heads: d / hv,
      hv,
      qk: family.qk_ratio * hv,
      ff: family.ff_ratio * d,
      vocab: family.vocab_size,
    };
  }

  // companion.accounting.params.qkv_width, for as many heads of keys and values as of queries
  const qkvWidth = (a) => a.heads * a.qk + a.heads * (a.qk + a.hv);

  // companion.accounting.params.count_params
  function countParams(a) {
    const hidden = a.heads * a.hv;
    let block = a.d * qkvWidth(a) + a.d * hidden + 3 * a.d * a.ff + 2 * a.d;
    if (isXlstm(a)) {
      block += 2 * a.d * a.heads + 2 * a.heads + hidden + a.d * hidden;
    }
    return { total: 2 * a.vocab * a.d + a.layers * block + a.d, embedding: a.vocab * a.d };
  }

  // companion.accounting.conventions.mlstm_chunk_paper
  function chunkFlops(L, qk, hv) {
    const gates = (L * (L + 1)) / 2 + 2 * L;
    const state = gates + (5 + 5 * L) + (2 * qk * hv + 4 * L * qk * hv + 3 * L * qk) + (2 * qk + 4 * L * qk);
    return state + (L * (L + 1)) / 2 + L ** 2 * (10 + 2 * qk + 2 * hv) + 2 * L + (2 * L + 5 * L + 2 * L * hv);
  }

  // companion.accounting.flops.forward_flops: the core of the mixer, the unembedding, everything else; one sequence
  function forwardFlops(a, T, convention) {
    const hidden = a.heads * a.hv;
    let perToken = 2 * a.d * qkvWidth(a) + 2 * a.d * hidden;
    perToken += 6 * a.d * a.ff + convention.ffn_elementwise_flops * a.ff;
    let core;
    if (isXlstm(a)) {
      perToken += 4 * a.d * a.heads + 2 * a.d * hidden + convention.output_gate_elementwise_flops * hidden;
      const L = convention.chunk_size;
      const tail = T % L;
      core = a.heads * (Math.floor(T / L) * chunkFlops(L, a.qk, a.hv) + (tail ? chunkFlops(tail, a.qk, a.hv) : 0));
    } else {
      const perScore = 2 * a.qk + 2 * a.hv + convention.attention_softmax_flops;
      core = convention.attention_causal_factor * T ** 2 * a.heads * perScore;
    }
    return { core: a.layers * core, unembedding: 2 * T * a.d * a.vocab, products: a.layers * T * perToken };
  }

  // companion.accounting.inference.cache_numbers
  function cacheNumbers(a, T) {
    return isXlstm(a) ? a.layers * a.heads * (a.qk * a.hv + a.qk + 1) : a.layers * a.heads * (a.qk + a.hv) * T;
  }

  // companion.accounting.inference.activations_per_token
  function activationsPerToken(a) {
    const hidden = a.heads * a.hv;
    let block = 14 * a.d + 2 * qkvWidth(a) + 2 * hidden + 6 * a.ff;
    if (isXlstm(a)) {
      block += a.d + 6 * hidden + 4 * a.heads;
    }
    return a.layers * block + 4 * a.d;
  }

  // companion.accounting.inference._live_per_token
  const livePerToken = (a) => a.d + Math.max(a.d + qkvWidth(a) + a.heads * a.hv, a.d + 3 * a.ff);

  // companion.accounting.inference.count_prefill and count_step
  function countPasses(a, T, B, model) {
    const { precision, convention } = model;
    const weights = countParams(a);
    const read = (weights.total - weights.embedding) * precision.bytes_per_weight;
    const perCache = isXlstm(a) ? precision.bytes_per_state : precision.bytes_per_cache;
    const cache = cacheNumbers(a, T) * perCache;
    const activations = activationsPerToken(a);
    const perActivation = precision.bytes_per_activation;
    const forward = forwardFlops(a, T, convention);
    const one = forwardFlops(a, 1, convention);
    let prefillCache = cache;
    let stepCache = cacheNumbers(a, T + 1) * perCache;
    let core = T * a.heads * (2 * a.qk + 2 * a.hv + convention.attention_softmax_flops);
    if (isXlstm(a)) {
      prefillCache = 2 * cache * Math.ceil(T / convention.chunk_size);
      stepCache = 2 * cache;
      core = a.heads * (6 * a.qk * a.hv + 7 * a.qk + a.hv + model.recurrent_gate_flops);
    }
    const held = (tokens) => (tokens * livePerToken(a) + a.vocab) * perActivation;
    const memory = (tokens) => weights.total * precision.bytes_per_weight + B * cache + B * held(tokens);
    const stepActivations = (activations + a.vocab) * perActivation;
    return {
      weightBytes: weights.total * precision.bytes_per_weight,
      cacheBytes: B * cache,
      prefill: {
        flops: B * (forward.products + forward.core + 2 * a.d * a.vocab),
        bytes: read + B * prefillCache + B * (T * activations + a.vocab) * perActivation,
        memory: memory(T),
      },
      step: {
        flops: B * (one.products + one.unembedding + a.layers * core),
        bytes: read + B * stepCache + B * stepActivations,
        memory: memory(1),
        traffic: { weights: read, cache: B * stepCache, activations: B * stepActivations },
      },
    };
  }

  const roofline = (pass, hardware) =>
    Math.max(pass.flops / hardware.peak_flops_per_s, pass.bytes / hardware.peak_bytes_per_s);

  // companion.inference.runtime_model.features
  function runtimeFeatures(a, T, B, hardware, passes, model) {
    const forward = forwardFlops(a, T, model.convention);
    const { traffic } = passes.step;
    return {
      flops: B * (forward.products + forward.core),
      product_flops: B * forward.products,
      attention_flops: B * forward.core,
      token_layers: B * T * a.layers,
      layers: a.layers,
      passes: 1,
      weight_bytes: traffic.weights,
      activation_bytes: traffic.activations,
      state_bytes: traffic.cache,
      batched_layers: B > 1 ? a.layers : 0,
      cache_waves: a.layers * T * Math.ceil((B * a.heads) / hardware.num_multiprocessors - 1e-9),
    };
  }

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

  function create(model) {
    const hardware = Object.fromEntries(model.hardware.map((entry) => [entry.name, entry]));
    const { smallest, largest, difference_step: step } = model.search;
    const lowest = Math.log(smallest);
    const highest = Math.log(largest);

    // companion.runs.shape_family.bisect: ln d_model of the root of an increasing function
    function bisect(rises) {
      let [low, high] = [lowest, highest];
      for (let i = 0; i < 60; i++) {
        const middle = 0.5 * (low + high);
        if (rises(middle) < 0) {
          low = middle;
        } else {
          high = middle;
        }
      }
      return 0.5 * (low + high);
    }

    const numParams = (family, d) => countParams(shapesAt(family, d)).total;

    // ShapeFamily.flops_per_token
    function flopsPerToken(family, d, T) {
      const forward = forwardFlops(shapesAt(family, d), T, model.convention);
      return ((1 + model.convention.backward_factor) * (forward.products + forward.core + forward.unembedding)) / T;
    }

    // ShapeFamily.width_of
    const widthOf = (family, size) => Math.exp(bisect((x) => Math.log(numParams(family, Math.exp(x)) / size)));

    // LossSurface.predict
    const predict = (law, N, D) => law.E + (law.A * N ** -law.alpha + law.B * D ** -law.beta) ** law.gamma;

    // What the optimum of any law needs of a width; the laws of a bootstrap share most widths they look at.
    function geometryOf(family, T) {
      const known = new Map();
      return (x) => {
        if (!known.has(x)) {
          const [up, down] = [Math.exp(x + step), Math.exp(x - step)];
          const sizes = Math.log(numParams(family, up) / numParams(family, down)) / (2 * step);
          const prices = Math.log(flopsPerToken(family, up, T) / flopsPerToken(family, down, T)) / (2 * step);
          const N = numParams(family, Math.exp(x));
          const F = flopsPerToken(family, Math.exp(x), T);
          const logs = { logN: Math.log(N), logF: Math.log(F), sizes: Math.log(sizes), prices: Math.log(prices) };
          known.set(x, { N, F, ...logs });
        }
        return known.get(x);
      };
    }

    // companion.fitting.compute_optimal.compute_optimal, for one law
    function optimum(law, geometry, C) {
      const ofTokens = Math.log(law.beta * law.B);
      const ofSize = Math.log(law.alpha * law.A);
      const preference = (x) => {
        const g = geometry(x);
        const fromTokens = ofTokens - law.beta * (Math.log(C) - g.logF) + g.prices;
        return fromTokens - (ofSize - law.alpha * g.logN + g.sizes);
      };
      const x = bisect(preference);
      const atEnd = Math.exp(x) < smallest * (1 + 1e-6) || Math.exp(x) > largest * (1 - 1e-6);
      const { N, F } = geometry(x);
      const D = atEnd ? NaN : C / F;
      return { num_params: atEnd ? NaN : N, num_tokens: D, tokens_per_param: D / N, loss: predict(law, N, D) };
    }

    // companion.runs.shape_family.FamilyScale.num_params
    function sizeFor(family, T, C, ratio) {
      const target = Math.log(C / ratio);
      const cost = (x) => Math.log(flopsPerToken(family, Math.exp(x), T) * numParams(family, Math.exp(x)));
      return numParams(family, Math.exp(bisect((x) => cost(x) - target)));
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
      const passes = countPasses(shapes, T, B, model);
      const features = runtimeFeatures(shapes, T, B, target, passes, model);
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
        geometries.set(key, geometryOf(architecture.family, T));
      }
      return geometries.get(key);
    }

    // companion.explorer.Explorer.evaluate, for one architecture
    function evaluateOne(architecture, setting) {
      const { train_flops: C, context_length: T, tokens_per_param: ratio, batch_size: B } = setting;
      const { family, law, laws } = architecture;
      const target = hardware[setting.hardware];
      const geometry = geometryFor(architecture, T);
      const best = optimum(law, geometry, C);
      const N = ratio === null ? best.num_params : sizeFor(family, T, C, ratio);
      const D = ratio === null ? best.num_tokens : ratio * N;
      const each = laws.E.map((_, r) => Object.fromEntries(Object.keys(laws).map((name) => [name, laws[name][r]])));
      const bests = each.map((one) => optimum(one, geometry, C));
      const { passes, ttft, step: stepTime, memory } = serve(
        architecture, shapesAt(family, widthOf(family, N)), T, B, target, true,
      );
      const numbers = {
        num_params: N,
        num_tokens: D,
        tokens_per_param: D / N,
        loss: predict(law, N, D),
        ...Object.fromEntries(Object.entries(best).map(([name, value]) => [`optimal_${name}`, value])),
        ttft_s: ttft.value,
        ttft_roofline_s: roofline(passes.prefill, target),
        step_time_s: stepTime.value,
        step_time_roofline_s: roofline(passes.step, target),
        memory_bytes: memory,
        weight_bytes: passes.weightBytes,
        cache_bytes: passes.cacheBytes,
      };
      const samples = { loss: each.map((one) => predict(one, N, D)) };
      for (const name of Object.keys(best)) {
        samples[`optimal_${name}`] = bests.map((one) => one[name]);
      }
      Object.assign(samples, { ttft_s: ttft.samples, step_time_s: stepTime.samples });
      const intervals = Object.fromEntries(
        Object.entries(samples).map(([name, values]) => [name, interval(values, model.level)]),
      );
      return {
        numbers,
        intervals,
        fits: memory <= target.memory_bytes,
        outside: outside(architecture, numbers, setting),
        below_roofline: ["ttft", "step_time"].filter((of) => numbers[`${of}_s`] < numbers[`${of}_roofline_s`]),
      };
    }

    const evaluate = (setting) =>
      Object.fromEntries(model.architectures.map((one) => [one.name, evaluateOne(one, setting)]));

    return { evaluate, shapesAt, widthOf, numParams, flopsPerToken, predict, serve, outside, hardware };
  }

  window.companionExplorerModel = { create };
})();
