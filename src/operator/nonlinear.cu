// Pointwise curves (0: clip, with gain a, between b and c; 1: shift by a; 2: power a) and magnitudes.

#define FLOOR (REAL)1e-6

KERNEL(values, const REAL *x, REAL *out, Int n, Int curve, double a, double b, double c) {
    Int i = element();
    if (i >= n) return;
    if (curve == 0) out[i] = least(largest((REAL)a * x[i], (REAL)b), (REAL)c);
    if (curve == 1) out[i] = x[i] + (REAL)a;
    if (curve == 2) out[i] = pow(largest(x[i], FLOOR), (REAL)a);
}

// Slopes times v.
KERNEL(slopes, const REAL *x, const REAL *v, REAL *out, Int n, Int curve, double a, double b, double c) {
    Int i = element();
    if (i >= n) return;
    REAL slope = 1, y = (REAL)a * x[i];
    if (curve == 0) slope = y > (REAL)b && y < (REAL)c ? (REAL)a : 0;
    if (curve == 2) slope = x[i] > FLOOR ? (REAL)a * pow(x[i], (REAL)(a - 1)) : 0;
    out[i] = slope * v[i];
}

KERNEL(modulus, const REAL *z, REAL *out, Int n) {
    Int i = element();
    if (i < n) out[i] = sqrt(z[2 * i] * z[2 * i] + z[2 * i + 1] * z[2 * i + 1]);
}

// out ← v z/|z|, 0 at 0.
KERNEL(along_phase, const REAL *z, const REAL *v, REAL *out, Int n) {
    Int i = element();
    if (i >= n) return;
    REAL size = sqrt(z[2 * i] * z[2 * i] + z[2 * i + 1] * z[2 * i + 1]), factor = size > 0 ? v[i] / size : 0;
    out[2 * i] = factor * z[2 * i];
    out[2 * i + 1] = factor * z[2 * i + 1];
}
