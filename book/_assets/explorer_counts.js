// Counts of one model in the explorer: its shapes, and the FLOPs, bytes and memory of its passes, from the polynomials of
// `companion.explorer.Explorer.model`. Every function mirrors one of the package, named in its comment.
(function () {
  "use strict";

  const sum = (values) => values.reduce((total, value) => total + value, 0);

  // Every shape of a family as a power of d_model: coefficient and exponent
  const powersOf = (family) => ({
    d_model: [1, 1],
    n_layers: [family.depth, family.depth_exponent],
    n_heads: [family.hidden_ratio / family.head_width, 1 - family.head_width_exponent],
    d_hv: [family.head_width, family.head_width_exponent],
    d_qk: [family.qk_ratio * family.head_width, family.head_width_exponent],
    d_ff: [family.ff_ratio, 1],
    vocab_size: [family.vocab_size, 0],
  });

  // companion.runs.shape_family.ShapeFamily.shapes
  const shapesAt = (family, d) =>
    Object.fromEntries(Object.entries(powersOf(family)).map(([name, [of, power]]) => [name, of * d ** power]));

  // A count of the members of a family as a function of ln d_model: monomials of equal power are one. Sliders ask for a
  // hundred thousand of them. `known` has the values of all variables that are no shapes.
  function ofWidth(terms, family, known) {
    const powers = powersOf(family);
    const found = new Map();
    for (const [coefficient, variables] of terms) {
      let [factor, exponent] = [coefficient, 0];
      for (const [variable, power] of Object.entries(variables)) {
        const [of, each] = powers[variable] ?? [known[variable], 0];
        factor *= of ** power;
        exponent += each * power;
      }
      const key = exponent.toFixed(9);
      found.set(key, [(found.get(key)?.[0] ?? 0) + factor, exponent]);
    }
    const sums = [...found.values()].filter(([factor]) => factor !== 0);
    return (x) => {
      let total = 0;
      for (const [factor, exponent] of sums) {
        total += factor * Math.exp(exponent * x);
      }
      return total;
    };
  }

  // A count as a function of variables by name: a sum of monomials, or the largest of several sums
  const compiled = (sums) => (variables) =>
    Math.max(
      ...sums.map((terms) =>
        sum(
          terms.map(([coefficient, powers]) =>
            Object.entries(powers).reduce((all, [variable, power]) => all * variables[variable] ** power, coefficient),
          ),
        ),
      ),
    );

  // The variables of a count: shapes, tokens of the context, and their chunks
  function atContext(shapes, T, chunkSize) {
    const full_chunks = Math.floor(T / chunkSize);
    const tail = T - full_chunks * chunkSize;
    const has_tail = tail ? 1 : 0;
    return { ...shapes, context_length: T, full_chunks, tail, has_tail, chunks: full_chunks + has_tail };
  }

  // companion.accounting.inference.count_prefill and count_step
  function countPasses(counts, shapes, T, B, model) {
    const { precision, convention } = model;
    const at = atContext(shapes, T, convention.chunk_size);
    const one = atContext(shapes, 1, convention.chunk_size);
    const vocabulary = shapes.vocab_size;
    const total = counts.num_params(at) * precision.bytes_per_weight;
    const read = total - counts.embedding(at) * precision.bytes_per_weight;
    const perActivation = precision.bytes_per_activation;
    const activations = (tokens) => (tokens * counts.activations(at) + vocabulary) * perActivation;
    const held = (tokens) => (tokens * counts.live(at) + vocabulary) * perActivation;
    const [products, core, cache] = ["products", "core", "cache"].map((name) => counts[name](at));
    const stepCache = B * counts.step_cache(at);
    const memory = (tokens) => total + B * cache + B * held(tokens);
    return {
      weightBytes: total,
      cacheBytes: B * cache,
      prefill: {
        flops: B * (products + core + counts.unembedding(one)),
        bytes: read + B * counts.prefill_cache(at) + B * activations(T),
        memory: memory(T),
        products: B * products,
        core: B * core,
      },
      step: {
        flops: B * (counts.products(one) + counts.unembedding(one) + counts.step_core(at)),
        bytes: read + stepCache + B * activations(1),
        memory: memory(1),
        traffic: { weights: read, cache: stepCache, activations: B * activations(1) },
      },
    };
  }

  const roofline = (pass, hardware) =>
    Math.max(pass.flops / hardware.peak_flops_per_s, pass.bytes / hardware.peak_bytes_per_s);

  // companion.inference.features.features
  function runtimeFeatures(shapes, T, B, hardware, passes) {
    const { prefill, step } = passes;
    const { n_layers, n_heads } = shapes;
    return {
      flops: prefill.products + prefill.core,
      product_flops: prefill.products,
      attention_flops: prefill.core,
      token_layers: B * T * n_layers,
      layers: n_layers,
      passes: 1,
      weight_bytes: step.traffic.weights,
      activation_bytes: step.traffic.activations,
      state_bytes: step.traffic.cache,
      batched_layers: B > 1 ? n_layers : 0,
      cache_waves: n_layers * T * Math.ceil((B * n_heads) / hardware.num_multiprocessors - 1e-9),
    };
  }

  window.companionExplorerCounts = { sum, shapesAt, ofWidth, compiled, atContext, countPasses, roofline, runtimeFeatures };
})();
