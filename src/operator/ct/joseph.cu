// Joseph's method for parallel rays, and its adjoint: the coefficients of joseph.rs. A thread has one ray, or one pixel,
// of SLICES slices, which share its weights.

#define SLICES 4
#define VIEW 8

// Ray j crosses line k at u = origin + k·per_line + j·per_ray.
struct View {
    double origin, per_line, per_ray, slope, length;
    bool transposed, reversed;
};

DEVICE View view_at(const double *table, Int v) {
    const double *row = table + VIEW * v;
    View view = {row[0], row[1], row[2], row[3], row[4], row[5] != 0, row[6] != 0};
    return view;
}

// out[slice, view, bin] ← line integrals of images given by rows [slice, row, column] and by columns [slice, column, row].
KERNEL(project, const REAL *rows, const REAL *columns, REAL *out, const double *table, Int slices, Int views, Int bins,
       Int height, Int width) {
    Int ray = element();
    Int line = quotient(ray, bins), bin = ray - line * bins;
    Int group = quotient(line, views), v = line - group * views;
    Int first = group * SLICES, here = at_most(SLICES, slices - first);
    if (here <= 0) return;
    View view = view_at(table, v);
    Int count = view.transposed ? width : height, length = view.transposed ? height : width;
    Int plane = height * width;
    const REAL *image = (view.transposed ? columns : rows) + first * plane;
    double start = view.origin + (double)(view.reversed ? bins - 1 - bin : bin) * view.per_ray;
    Int from = 0, to = count;
    if (view.per_line == 0) {
        if (!(start > -1 && start < (double)length)) to = 0;
    } else {
        double a = (-1 - start) / view.per_line, b = ((double)length - start) / view.per_line;
        double low = a < b ? a : b, high = a < b ? b : a;
        from = low > 0 ? (low < (double)count ? (Int)low : count) : 0;
        to = high < 0 ? 0 : (high < (double)count - 1 ? (Int)high + 1 : count);
    }
    REAL sums[SLICES] = {0, 0, 0, 0};
    for (Int k = from; k < to; k++) {
        double u = start + (double)k * view.per_line, whole = floor(u);
        REAL f = (REAL)(u - whole);
        Int i = (Int)whole;
        bool left = i >= 0 && i < length, right = i >= -1 && i < length - 1;
        const REAL *at = image + k * length + i;
        for (int s = 0; s < SLICES; s++) {
            if (s >= here) continue;
            REAL a = left ? at[s * plane] : 0, b = right ? at[s * plane + 1] : 0;
            sums[s] += a + f * (b - a);
        }
    }
    for (int s = 0; s < SLICES; s++)
        if (s < here) out[((first + s) * views + v) * bins + bin] = (REAL)view.length * sums[s];
}

// out[slice, row, column] ← Σ over views and rays of hat((v − j)·slope)·length·y[slice, view, j].
KERNEL(back_project, const REAL *y, REAL *out, const double *table, Int slices, Int views, Int bins, Int height,
       Int width) {
    Int pixel = element();
    Int plane = height * width, group = quotient(pixel, plane);
    Int first = group * SLICES, here = at_most(SLICES, slices - first);
    if (here <= 0) return;
    pixel -= group * plane;
    Int row = quotient(pixel, width), column = pixel - row * width;
    Int sinogram = views * bins;
    REAL sums[SLICES] = {0, 0, 0, 0};
    for (Int v = 0; v < views; v++) {
        View view = view_at(table, v);
        Int line = view.transposed ? column : row, position = view.transposed ? row : column;
        double at = ((double)position - view.origin - (double)line * view.per_line) / view.per_ray;
        double reach = 1 / view.slope;
        double low = ceil(at - reach), high = floor(at + reach);
        Int from = low > 0 ? (low < (double)bins ? (Int)low : bins) : 0;
        Int to = high < (double)bins - 1 ? (Int)high : bins - 1;
        for (Int j = from; j <= to; j++) {
            double weight = 1 - fabs(at - (double)j) * view.slope;
            if (!(weight > 0)) continue;
            REAL w = (REAL)(weight * view.length);
            const REAL *data = y + (first * views + v) * bins + (view.reversed ? bins - 1 - j : j);
            for (int s = 0; s < SLICES; s++) {
                if (s >= here) continue;
                sums[s] += w * data[s * sinogram];
            }
        }
    }
    for (int s = 0; s < SLICES; s++)
        if (s < here) out[(first + s) * plane + pixel] = sums[s];
}
