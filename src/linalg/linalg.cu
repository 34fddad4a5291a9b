// The fused updates of the iterative methods. Those that also sum have `items, size, parts, partial` last.

// x ← x + α d, r ← r − α q; one sum: ‖r‖².
KERNEL(advance, const REAL *d, const REAL *q, REAL *x, REAL *r, const double *alpha, Int items, Int size, Int parts,
       double *partial) {
    Part p = part_of(size, parts);
    REAL a = (REAL)alpha[p.item];
    double sum = 0;
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) {
        x[i] += a * d[i];
        REAL next = r[i] - a * q[i];
        r[i] = next;
        sum += (double)next * (double)next;
    }
    give(partial, 0, items, parts, p, sum);
}

// x ← factors[item] x
KERNEL(scale_items, REAL *x, Int n, Int size, const double *factors) {
    Int i = element();
    if (i < n) x[i] *= (REAL)factors[quotient(i, size)];
}

// out ← base + scale · steps · out; the steps repeat, or are 1 where period is 0.
KERNEL(step_from, const REAL *base, const REAL *steps, Int period, REAL *out, Int n, double scale) {
    Int i = element();
    if (i >= n) return;
    REAL step = period ? (REAL)scale * steps[i - quotient(i, period) * period] : (REAL)scale;
    out[i] = base[i] + step * out[i];
}

// x ← x + ρ (next − x); two sums: Σ (next − x)²/step, Σ next²/step.
KERNEL(relax, const REAL *next, const REAL *steps, Int stepped, REAL *x, REAL *beyond, Int extended, double rho,
       double inverse, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double moved = 0, total = 0;
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) {
        REAL to = next[i], off = to - x[i];
        double weight = stepped ? 1 / (double)steps[i - p.item * size] : inverse;
        moved += weight * (double)(off * off);
        total += weight * (double)(to * to);
        if (extended) beyond[i] = 2 * to - x[i];
        x[i] += (REAL)rho * off;
    }
    give(partial, 0, items, parts, p, moved);
    give(partial, 1, items, parts, p, total);
}

KERNEL(inverse_or_one, REAL *out, Int n, double scale) {
    Int i = element();
    if (i < n) out[i] = out[i] > 0 ? (REAL)scale / out[i] : 1;
}

KERNEL(reciprocal, const REAL *x, REAL *out, Int n) {
    Int i = element();
    if (i < n) out[i] = 1 / x[i];
}

// u ← u − next, z ← next; five sums: ‖image − next‖², ‖image‖², ‖next‖², ‖next − z‖², ‖u‖².
KERNEL(exchange, const REAL *image, const REAL *next, REAL *z, REAL *u, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double sums[5] = {0, 0, 0, 0, 0};
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) {
        REAL a = image[i], b = next[i], c = u[i] - b;
        REAL gap = a - b, moved = b - z[i];
        u[i] = c;
        z[i] = b;
        sums[0] += (double)(gap * gap);
        sums[1] += (double)(a * a);
        sums[2] += (double)(b * b);
        sums[3] += (double)(moved * moved);
        sums[4] += (double)(c * c);
    }
    for (int s = 0; s < 5; s++) give(partial, s, items, parts, p, sums[s]);
}

// Three sums: ⟨ahead − next, next − last⟩, ‖ahead − next‖², ‖next‖².
KERNEL(compare, const REAL *next, const REAL *ahead, const REAL *last, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double sums[3] = {0, 0, 0};
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) {
        REAL back = ahead[i] - next[i], step = next[i] - last[i];
        sums[0] += (double)(back * step);
        sums[1] += (double)(back * back);
        sums[2] += (double)(next[i] * next[i]);
    }
    for (int s = 0; s < 3; s++) give(partial, s, items, parts, p, sums[s]);
}

// out ← x + β[item] (x − last)
KERNEL(extrapolate, const REAL *x, const REAL *last, REAL *out, Int n, Int size, const double *beta) {
    Int i = element();
    if (i < n) out[i] = x[i] + (REAL)beta[quotient(i, size)] * (x[i] - last[i]);
}
