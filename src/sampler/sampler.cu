// Data steps with total variation along the slices, weights, and Adam. `size` counts the elements of a slice.

// out ← out + ρ DᵀD x
KERNEL(add_normal, const REAL *x, REAL *out, Int n, Int size, double rho) {
    Int i = element();
    if (i >= n) return;
    REAL here = x[i], sum = 0;
    if (i >= size) sum += here - x[i - size];
    if (i + size < n) sum += here - x[i + size];
    out[i] += (REAL)rho * sum;
}

// out ← out + ρ Dᵀ(z − u)
KERNEL(add_adjoint, const REAL *z, const REAL *u, REAL *out, Int n, Int size, double rho) {
    Int i = element();
    if (i >= n) return;
    REAL sum = 0;
    if (i >= size) sum += z[i - size] - u[i - size];
    if (i + size < n) sum -= z[i] - u[i];
    out[i] += (REAL)rho * sum;
}

// v = D x + u; z ← shrink(v, threshold); u ← v − z, for numbers of `width` parts; n elements have a slice above them.
KERNEL(update_split, const REAL *x, REAL *z, REAL *u, Int n, Int size, Int width, double threshold) {
    Int i = element() * width;
    if (i >= n) return;
    REAL t = (REAL)threshold, a = x[i + size] - x[i] + u[i], b = 0;
    if (width == 2) b = x[i + 1 + size] - x[i + 1] + u[i + 1];
    REAL length = width == 2 ? hypot(a, b) : fabs(a);
    REAL keep = length > t ? 1 - t / length : 0;
    z[i] = keep * a;
    u[i] = a - z[i];
    if (width == 2) {
        z[i + 1] = keep * b;
        u[i + 1] = b - z[i + 1];
    }
}

// out ← w · out; the weights repeat, each for `parts` elements.
KERNEL(weigh, const REAL *w, REAL *out, Int n, Int period, Int parts) {
    Int i = element();
    if (i >= n) return;
    Int j = quotient(i, parts);
    out[i] *= w[j - quotient(j, period) * period];
}

// One update of Adam.
KERNEL(adam, const REAL *g, REAL *x, REAL *m, REAL *v, Int n, double beta1, double beta2, double rate, double correct) {
    Int i = element();
    if (i >= n) return;
    REAL b = (REAL)beta1, c = (REAL)beta2;
    m[i] = b * m[i] + (1 - b) * g[i];
    v[i] = c * v[i] + (1 - c) * g[i] * g[i];
    x[i] -= (REAL)rate * m[i] / (sqrt(v[i] * (REAL)correct) + (REAL)1e-8);
}
