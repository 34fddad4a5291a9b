// Multi-coil encoding: the passes around the Fourier transforms. Images [image, p], coil images
// [image, coil, p], maps [set, coil, p], all complex with p in [n0, n1, n2]; coil images hold frequency or position zero
// at index 0. `first` is the number of the first image of a group.

struct Sizes {
    Int coils, sets, n0, n1, n2;
};

DEVICE Int volume(Sizes s) { return s.n0 * s.n1 * s.n2; }

// The weight of the sample at place q (zero in the middle); columns [column, row], row 0 first in line order.
DEVICE REAL weight(const REAL *columns, Int q, Sizes s, Int rows) {
    Int width = quotient(volume(s), rows), row = quotient(q, width), column = q - row * width;
    row -= rows / 2;
    return columns[column * rows + (row < 0 ? row + rows : row)];
}

// coil ← S x; the middle of x goes to index 0 if it is `turned`.
KERNEL(expand, const REAL *x, const REAL *maps, REAL *coil, Int turned, Int images, Int first, Int coils, Int sets, Int n0,
       Int n1, Int n2) {
    Int index = element();
    Sizes s = {coils, sets, n0, n1, n2};
    Int size = volume(s), line = quotient(index, size), p = index - line * size;
    Int image = quotient(line, coils), c = line - image * coils;
    if (image >= images) return;
    Int q = turned ? rotated(p, n0, n1, n2, false) : p, set = first + image - quotient(first + image, sets) * sets;
    const REAL *a = x + 2 * ((first + image) * size + q), *m = maps + 2 * ((set * coils + c) * size + q);
    coil[2 * index] = m[0] * a[0] - m[1] * a[1];
    coil[2 * index + 1] = m[0] * a[1] + m[1] * a[0];
}

// y ← factor · M · coil
KERNEL(sample, const REAL *coil, const REAL *columns, REAL *y, Int images, Int first, Int coils, Int n0, Int n1, Int n2,
       Int rows, double factor) {
    Int index = element();
    Sizes s = {coils, 1, n0, n1, n2};
    Int size = volume(s), line = quotient(index, size), q = index - line * size;
    if (line >= images * coils) return;
    REAL w = (REAL)factor * weight(columns, q, s, rows);
    Int from = 2 * (line * size + rotated(q, n0, n1, n2, true)), to = 2 * (first * coils * size + index);
    y[to] = w * coil[from];
    y[to + 1] = w * coil[from + 1];
}

// coil ← M · y
KERNEL(unsample, const REAL *y, const REAL *columns, REAL *coil, Int images, Int first, Int coils, Int n0, Int n1, Int n2,
       Int rows) {
    Int index = element();
    Sizes s = {coils, 1, n0, n1, n2};
    Int size = volume(s), line = quotient(index, size), p = index - line * size;
    if (line >= images * coils) return;
    Int q = rotated(p, n0, n1, n2, false), from = 2 * ((first * coils + line) * size + q);
    REAL w = weight(columns, q, s, rows);
    coil[2 * index] = w * y[from];
    coil[2 * index + 1] = w * y[from + 1];
}

// coil ← M² · coil
KERNEL(filter, REAL *coil, const REAL *columns, Int images, Int coils, Int n0, Int n1, Int n2, Int rows) {
    Int index = element();
    Sizes s = {coils, 1, n0, n1, n2};
    Int size = volume(s), line = quotient(index, size), p = index - line * size;
    if (line >= images * coils) return;
    REAL w = weight(columns, rotated(p, n0, n1, n2, false), s, rows);
    coil[2 * index] *= w * w;
    coil[2 * index + 1] *= w * w;
}

// x ← factor · Σ conj(S) coil; index 0 goes to the middle of x if it is `turned`.
KERNEL(combine, const REAL *coil, const REAL *maps, REAL *x, Int turned, Int images, Int first, Int coils, Int sets, Int n0,
       Int n1, Int n2, double factor) {
    Int index = element();
    Sizes s = {coils, sets, n0, n1, n2};
    Int size = volume(s), image = quotient(index, size), q = index - image * size;
    if (image >= images) return;
    Int p = turned ? rotated(q, n0, n1, n2, true) : q, set = first + image - quotient(first + image, sets) * sets;
    REAL re = 0, im = 0;
    for (Int c = 0; c < coils; c++) {
        const REAL *v = coil + 2 * ((image * coils + c) * size + p), *m = maps + 2 * ((set * coils + c) * size + q);
        re += m[0] * v[0] + m[1] * v[1];
        im += m[0] * v[1] - m[1] * v[0];
    }
    x[2 * (first * size + index)] = (REAL)factor * re;
    x[2 * (first * size + index) + 1] = (REAL)factor * im;
}

// out ← out + conj(w) x, n complex numbers and the weights repeated.
KERNEL(add_conjugate_product, const REAL *w, const REAL *x, REAL *out, Int n, Int period) {
    Int i = element();
    if (i >= n) return;
    const REAL *m = w + 2 * (i - quotient(i, period) * period), *a = x + 2 * i;
    out[2 * i] += m[0] * a[0] + m[1] * a[1];
    out[2 * i + 1] += m[0] * a[1] - m[1] * a[0];
}
