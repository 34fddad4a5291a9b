// Products with coil maps and phases, complex. Images [image, point], coil images [image, coil, point], maps
// [set, coil, point].

KERNEL(coil_images, const REAL *x, const REAL *maps, REAL *out, Int n, Int coils, Int sets, Int points) {
    Int index = element();
    if (index >= n) return;
    Int line = quotient(index, points), p = index - line * points, image = quotient(line, coils);
    Int set = image - quotient(image, sets) * sets, c = line - image * coils;
    const REAL *a = x + 2 * (image * points + p), *m = maps + 2 * ((set * coils + c) * points + p);
    out[2 * index] = m[0] * a[0] - m[1] * a[1];
    out[2 * index + 1] = m[0] * a[1] + m[1] * a[0];
}

// out ← Σ conj(S) x.
KERNEL(image, const REAL *x, const REAL *maps, REAL *out, Int n, Int coils, Int sets, Int points) {
    Int index = element();
    if (index >= n) return;
    Int item = quotient(index, points), p = index - item * points, set = item - quotient(item, sets) * sets;
    REAL re = 0, im = 0;
    for (Int c = 0; c < coils; c++) {
        const REAL *a = x + 2 * ((item * coils + c) * points + p), *m = maps + 2 * ((set * coils + c) * points + p);
        re += m[0] * a[0] + m[1] * a[1];
        im += m[0] * a[1] - m[1] * a[0];
    }
    out[2 * index] = re;
    out[2 * index + 1] = im;
}

// out ← w x, the weights repeated; with `add`, out ← out + conj(w) x.
KERNEL(modulate, const REAL *w, const REAL *x, REAL *out, Int n, Int period, Int add) {
    Int index = element();
    if (index >= n) return;
    const REAL *m = w + 2 * (index - quotient(index, period) * period), *a = x + 2 * index;
    if (add) {
        out[2 * index] += m[0] * a[0] + m[1] * a[1];
        out[2 * index + 1] += m[0] * a[1] - m[1] * a[0];
    } else {
        out[2 * index] = m[0] * a[0] - m[1] * a[1];
        out[2 * index + 1] = m[0] * a[1] + m[1] * a[0];
    }
}
