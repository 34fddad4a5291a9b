// Joseph's method for rays that diverge in the plane, and its adjoint: the coefficients of fan_joseph.rs. The adjoint
// asks where the two neighbours of a pixel on its line project, and then the rays between them for their weights.

#define SLICES 4
#define RAY 4
#define VIEW 10

// Ray [view, bin] crosses line k at u = origin + k·slope.
struct Ray {
    double origin, slope, length;
    int transposed, forward;
};

DEVICE Ray ray_at(const double *rays, Int index) {
    const double *row = rays + RAY * index;
    int kind = (int)row[3];
    Ray ray = {row[0], row[1], row[2], kind & 1, kind >> 1};
    return ray;
}

// out[slice, view, bin], as in joseph.cu. views: [column, row of the source, …].
KERNEL(project, const REAL *rows, const REAL *columns, REAL *out, const double *rays, const double *sights, Int slices,
       Int views, Int bins, Int height, Int width) {
    Int index = element();
    Int line = quotient(index, bins), bin = index - line * bins;
    Int group = quotient(line, views), v = line - group * views;
    Int first = group * SLICES, here = at_most(SLICES, slices - first);
    if (here <= 0) return;
    Ray ray = ray_at(rays, v * bins + bin);
    double start = ray.transposed ? sights[VIEW * v] : sights[VIEW * v + 1];
    Int count = ray.transposed ? width : height, length = ray.transposed ? height : width;
    Int plane = height * width;
    const REAL *image = (ray.transposed ? columns : rows) + first * plane;
    // Lines beyond the source where the ray is over the image.
    double low = ray.forward ? floor(start) + 1 : 0, high = ray.forward ? (double)count : ceil(start);
    if (ray.slope == 0) {
        if (!(ray.origin > -1 && ray.origin < (double)length)) high = low;
    } else {
        double a = (-1 - ray.origin) / ray.slope, b = ((double)length - ray.origin) / ray.slope;
        double least_line = floor(a < b ? a : b), last_line = ceil(a < b ? b : a) + 1;
        low = low > least_line ? low : least_line;
        high = high < last_line ? high : last_line;
    }
    Int from = low > 0 ? (low < (double)count ? (Int)low : count) : 0;
    Int to = high > 0 ? (high < (double)count ? (Int)high : count) : 0;
    REAL sums[SLICES] = {0, 0, 0, 0};
    for (Int k = from; k < to; k++) {
        double u = ray.origin + (double)k * ray.slope, whole = floor(u);
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
        if (s < here) out[((first + s) * views + v) * bins + bin] = (REAL)ray.length * sums[s];
}

// The bin, not whole, where a point at (dc, dr) columns and rows from the source projects; whether it does.
DEVICE bool bin_of(const double *sight, double dc, double dr, double *bin) {
    double across = sight[2] * dc + sight[3] * dr, ahead = sight[4] * dc + sight[5] * dr;
    if (sight[8] != 0) {
        *bin = sight[6] + sight[7] * atan2(across, ahead);
        return true;
    }
    *bin = sight[6] + across / ahead;
    return ahead > 1e-9 * (fabs(dc) + fabs(dr)) * sight[9];
}

// Rays of one view along one axis that meet the pixel at `position` on line `line`.
DEVICE void meet(const REAL *y, const double *rays, const double *sight, Int bins, Int sinogram, int transposed, Int line,
                 Int position, int here, REAL *sums) {
    double line_of_source = transposed ? sight[0] : sight[1], aside = transposed ? sight[1] : sight[0];
    double along = (double)line - line_of_source, across = (double)position - aside;
    double a, b;
    bool seen_a = transposed ? bin_of(sight, along, across - 1, &a) : bin_of(sight, across - 1, along, &a);
    bool seen_b = transposed ? bin_of(sight, along, across + 1, &b) : bin_of(sight, across + 1, along, &b);
    if (!seen_a && !seen_b) return;
    double low = a < b ? a : b, high = a < b ? b : a;
    if (!seen_a || !seen_b) {
        low = 0;
        high = (double)bins;
    }
    low = ceil(low - 1e-6);
    high = floor(high + 1e-6);
    Int from = low > 0 ? (low < (double)bins ? (Int)low : bins) : 0;
    Int to = high < (double)bins - 1 ? (Int)high : bins - 1;
    for (Int j = from; j <= to; j++) {
        Ray ray = ray_at(rays, j);
        if (ray.transposed != transposed || (ray.forward ? !(along > 0) : !(along < 0))) continue;
        double weight = 1 - fabs(ray.origin + (double)line * ray.slope - (double)position);
        if (!(weight > 0)) continue;
        REAL w = (REAL)(weight * ray.length);
        for (int s = 0; s < SLICES; s++)
            if (s < here) sums[s] += w * y[s * sinogram + j];
    }
}

KERNEL(back_project, const REAL *y, REAL *out, const double *rays, const double *sights, Int slices, Int views, Int bins,
       Int height, Int width) {
    Int pixel = element();
    Int plane = height * width, group = quotient(pixel, plane);
    Int first = group * SLICES, here = at_most(SLICES, slices - first);
    if (here <= 0) return;
    pixel -= group * plane;
    Int row = quotient(pixel, width), column = pixel - row * width;
    REAL sums[SLICES] = {0, 0, 0, 0};
    for (Int v = 0; v < views; v++) {
        const double *sight = sights + VIEW * v;
        double dc = fabs((double)column - sight[0]), dr = fabs((double)row - sight[1]);
        const REAL *data = y + (first * views + v) * bins;
        const double *own = rays + RAY * v * bins;
        // Rays that pass within one pixel have nearly the direction of the pixel itself.
        if (dr + 1.5 >= dc) meet(data, own, sight, bins, views * bins, 0, row, column, (int)here, sums);
        if (dc + 1.5 >= dr) meet(data, own, sight, bins, views * bins, 1, column, row, (int)here, sums);
    }
    for (int s = 0; s < SLICES; s++)
        if (s < here) out[(first + s) * plane + pixel] = sums[s];
}
