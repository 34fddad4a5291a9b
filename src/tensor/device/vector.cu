// The functions of tensor::vector.

// One sum: Σ x y.
KERNEL(inner, const REAL *x, const REAL *y, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double sum = 0;
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) sum += (double)x[i] * (double)y[i];
    give(partial, 0, items, parts, p, sum);
}

// How many are NaN or infinite.
KERNEL(not_finite, const REAL *x, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double count = 0;
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) count += x[i] - x[i] == 0 ? 0 : 1;
    give(partial, 0, items, parts, p, count);
}

// out ← Σ weights[k][item] terms[k], or that plus own[item]·out. The table holds the addresses of the terms, then
// weights[k][item], then own[item].
KERNEL(combine, REAL *out, Int n, Int size, Int items, Int terms, Int keep, const double *table) {
    Int i = element();
    if (i >= n) return;
    Int item = items == 1 ? 0 : quotient(i, size);
    const REAL *const *addresses = (const REAL *const *)table;
    const double *weights = table + terms, *own = weights + terms * items;
    REAL sum = 0;
    if (keep) sum = (REAL)own[item] == 1 ? out[i] : (REAL)own[item] * out[i];
    for (Int k = 0; k < terms; k++) sum += (REAL)weights[k * items + item] * addresses[k][i];
    out[i] = sum;
}

KERNEL(copy, const REAL *x, REAL *out, Int start, Int n) {
    Int i = element();
    if (i < n) out[start + i] = x[i];
}

// A comparison with NaN keeps the limit, as on the processor.
KERNEL(clamp, REAL *out, Int n, double low, double high) {
    Int i = element();
    if (i >= n) return;
    REAL value = out[i];
    value = value > (REAL)low ? value : (REAL)low;
    out[i] = value < (REAL)high ? value : (REAL)high;
}

KERNEL(shrink_real, REAL *out, Int n, double threshold) {
    Int i = element();
    if (i >= n) return;
    REAL t = (REAL)threshold;
    out[i] = largest(out[i] - t, 0) + least(out[i] + t, 0);
}

// n complex numbers.
KERNEL(shrink_complex, REAL *out, Int n, double threshold) {
    Int i = element();
    if (i >= n) return;
    REAL t = (REAL)threshold, re = out[2 * i], im = out[2 * i + 1];
    REAL size = sqrt(re * re + im * im);
    REAL keep = size > t ? 1 - t / size : 0;
    out[2 * i] = keep * re;
    out[2 * i + 1] = keep * im;
}

// out[i] ← w[i / repeat mod period] x[i].
KERNEL(multiply_real, const REAL *w, const REAL *x, REAL *out, Int n, Int period, Int repeat) {
    Int i = element();
    if (i >= n) return;
    Int j = quotient(i, repeat);
    out[i] = w[j - quotient(j, period) * period] * x[i];
}

// The same with n complex numbers, the weights conjugated where sign is −1.
KERNEL(multiply_complex, const REAL *w, const REAL *x, REAL *out, Int n, Int period, double sign) {
    Int i = element();
    if (i >= n) return;
    Int j = i - quotient(i, period) * period;
    REAL a = w[2 * j], b = (REAL)sign * w[2 * j + 1], re = x[2 * i], im = x[2 * i + 1];
    out[2 * i] = a * re - b * im;
    out[2 * i + 1] = a * im + b * re;
}
