// Back projection along divergent rays, weighted by 1/L²: one thread a voxel. `sights` holds sin and cos of every view;
// `sizes` holds height, width, bins, pixel, source to origin, source to detector, pitch, shift and whether it is curved.

struct Seen {
    double bin, magnification, weight;
};

DEVICE Seen see(const double *sight, const double *sizes, Int row, Int column) {
    double x = (column - (sizes[1] - 1) / 2) * sizes[3], y = ((sizes[0] - 1) / 2 - row) * sizes[3];
    double ahead = sizes[4] - x * sight[0] + y * sight[1], aside = x * sight[1] + y * sight[0];
    Seen s;
    if (sizes[8] != 0) {
        double square = ahead * ahead + aside * aside;
        s.bin = atan2(aside, ahead) / sizes[6] + sizes[7];
        s.magnification = sizes[5] / sqrt(square);
        s.weight = 1 / square;
    } else {
        s.magnification = sizes[5] / ahead;
        s.bin = aside * s.magnification / sizes[6] + sizes[7];
        s.weight = 1 / (ahead * ahead);
    }
    return s;
}

// out[item, row, column] from q[item, view, bin].
KERNEL(fan, const REAL *q, REAL *out, const double *sights, const double *sizes, Int n, Int views) {
    Int index = element();
    if (index >= n) return;
    Int height = (Int)sizes[0], width = (Int)sizes[1], bins = (Int)sizes[2];
    Int line = quotient(index, width), item = quotient(line, height);
    q += item * views * bins;
    REAL sum = 0;
    for (Int view = 0; view < views; view++, q += bins) {
        Seen s = see(sights + 2 * view, sizes, line - item * height, index - line * width);
        double left = floor(s.bin);
        if (left < 0 || left + 1 >= bins) continue;
        Int at = (Int)left;
        sum += (REAL)s.weight * (q[at] + (REAL)(s.bin - left) * (q[at + 1] - q[at]));
    }
    out[index] = sum;
}

DEVICE double sample(const REAL *q, Int row, Int rows, Int lines) { return row < 0 || row >= rows ? 0 : q[row * lines]; }

// out[item, slice, row, column] from q[item, detector row, view, bin]. The slice `from_middle` + slice lies that many slices
// from the middle; `per_slice` detector rows a slice at magnification 1; `middle` is the detector row of height 0.
KERNEL(cone, const REAL *q, REAL *out, const double *sights, const double *sizes, Int n, Int views, Int rows, Int slices,
       double from_middle, double per_slice, double middle) {
    Int index = element();
    if (index >= n) return;
    Int height = (Int)sizes[0], width = (Int)sizes[1], bins = (Int)sizes[2], lines = views * bins;
    Int line = quotient(index, width), plane = quotient(line, height), item = quotient(plane, slices);
    q += item * rows * lines;
    double sum = 0;
    for (Int view = 0; view < views; view++, q += bins) {
        Seen s = see(sights + 2 * view, sizes, line - plane * height, index - line * width);
        double left = floor(s.bin);
        if (left < 0 || left + 1 >= bins) continue;
        double v = middle + (from_middle + (plane - item * slices)) * per_slice * s.magnification, i = floor(v);
        if (i < -1 || i >= rows) continue;
        const REAL *near = q + (Int)left;
        double a = sample(near, (Int)i, rows, lines), b = sample(near + 1, (Int)i, rows, lines);
        a += (v - i) * (sample(near, (Int)i + 1, rows, lines) - a);
        b += (v - i) * (sample(near + 1, (Int)i + 1, rows, lines) - b);
        sum += s.weight * (a + (s.bin - left) * (b - a));
    }
    out[index] = (REAL)sum;
}
