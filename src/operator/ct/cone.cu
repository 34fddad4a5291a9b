// Joseph's method for rays in any direction, and its adjoint: the coefficients of upright.rs and oblique.rs. Volumes are
// [row, column, slice] and projections [view, bin, row] here, so that neighbouring threads read neighbouring numbers.
// The adjoint asks where the corners around a voxel in its plane project, and then the rays between them.

#define VIEW 28

// How slices, rows, columns are numbered along each direction.
struct Grid {
    Int slices, height, width;
    double pixel, thickness;
};

// A ray that crosses plane k of its axis (0 rows, 1 columns, 2 slices) at (a, b) = origin + k·slope, where (k, a, b) are
// (row, column, slice), (column, row, slice) or (slice, row, column).
struct Ray {
    int axis;
    bool forward;
    double a, b, da, db, start, length;
};

DEVICE double largest_of(double a, double b, double c) {
    double m = a > b ? a : b;
    return m > c ? m : c;
}

DEVICE Ray ray_to(const double *view, Grid grid, Int rows, Int bins, Int row, Int bin) {
    double i = (double)row - (double)(rows - 1) / 2, j = (double)bin - (double)(bins - 1) / 2;
    double d[3];
    if (view[12] != 0) {
        double radius = view[21], step = view[22], angle = j * step / radius;
        double c = cos(angle), s = sin(angle) * radius / step;
        d[0] = c * view[3] + s * view[6];
        d[1] = c * view[4] + s * view[7];
        d[2] = view[5] + i * view[11];
    } else {
        for (int x = 0; x < 3; x++) d[x] = view[3 + x] + i * view[9 + x] + j * view[6 + x];
    }
    double columns = d[0] / grid.pixel, lines = -d[1] / grid.pixel, slices = d[2] / grid.thickness;
    double column = view[24], line = view[25], slice = view[26];
    Ray ray;
    double along, a, b;
    if (fabs(slices) > fabs(lines) && fabs(slices) > fabs(columns)) {
        ray.axis = 2;
        ray.start = slice, ray.a = line, ray.b = column;
        along = slices, a = lines, b = columns;
    } else if (fabs(lines) >= fabs(columns)) {
        ray.axis = 0;
        ray.start = line, ray.a = column, ray.b = slice;
        along = lines, a = columns, b = slices;
    } else {
        ray.axis = 1;
        ray.start = column, ray.a = line, ray.b = slice;
        along = columns, a = lines, b = slices;
    }
    ray.da = a / along;
    ray.db = b / along;
    ray.a -= ray.start * ray.da;
    ray.b -= ray.start * ray.db;
    ray.forward = along > 0;
    ray.length = sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / fabs(along);
    return ray;
}

// Narrows the planes low ≤ k < high to those where origin + k·slope is in (−1, count), perhaps one more on either side.
DEVICE void narrow(double origin, double slope, double count, double *low, double *high) {
    if (slope == 0) {
        if (!(origin > -1 && origin < count)) *high = *low;
        return;
    }
    double a = (-1 - origin) / slope, b = (count - origin) / slope;
    double from = floor(a < b ? a : b), to = ceil(a < b ? b : a) + 1;
    *low = *low > from ? *low : from;
    *high = *high < to ? *high : to;
}

// traced[item, view, bin, row] ← line integrals of volumes [item, row, column, slice].
KERNEL(project, const REAL *volume, REAL *traced, const double *table, Int items, Int views, Int bins, Int rows,
       Int slices, Int height, Int width, double pixel, double thickness) {
    Int index = element();
    Int line = quotient(index, rows), row = index - line * rows;
    Int sweep = quotient(line, bins), bin = line - sweep * bins;
    Int item = quotient(sweep, views), v = sweep - item * views;
    if (item >= items) return;
    Grid grid = {slices, height, width, pixel, thickness};
    Ray ray = ray_to(table + VIEW * v, grid, rows, bins, row, bin);
    // Planes, voxels along a and b, and how far apart they are in memory.
    Int count = ray.axis == 0 ? height : ray.axis == 1 ? width : slices;
    Int along_a = ray.axis == 0 ? width : height, along_b = ray.axis == 2 ? width : slices;
    Int plane = ray.axis == 0 ? width * slices : ray.axis == 1 ? slices : 1;
    Int step_a = ray.axis == 0 ? slices : width * slices, step_b = ray.axis == 2 ? slices : 1;
    double low = ray.forward ? floor(ray.start) + 1 : 0, high = ray.forward ? (double)count : ceil(ray.start);
    low = low > 0 ? low : 0;
    high = high < (double)count ? high : (double)count;
    narrow(ray.a, ray.da, (double)along_a, &low, &high);
    narrow(ray.b, ray.db, (double)along_b, &low, &high);
    Int to = high > 0 ? (Int)high : 0;
    const REAL *voxels = volume + item * slices * height * width;
    REAL sum = 0;
    for (Int k = (Int)low; k < to; k++) {
        double a = ray.a + (double)k * ray.da, b = ray.b + (double)k * ray.db;
        double p = floor(a), q = floor(b);
        Int i = (Int)p, j = (Int)q;
        if (i < -1 || j < -1 || i >= along_a || j >= along_b) continue;
        REAL f = (REAL)(a - p), g = (REAL)(b - q);
        const REAL *at = voxels + k * plane + i * step_a + j * step_b;
        bool near = i >= 0, far = i + 1 < along_a, below = j >= 0, above = j + 1 < along_b;
        REAL one = near && below ? at[0] : 0, two = near && above ? at[step_b] : 0;
        REAL three = far && below ? at[step_a] : 0, four = far && above ? at[step_a + step_b] : 0;
        one += g * (two - one);
        three += g * (four - three);
        sum += one + f * (three - one);
    }
    traced[index] = (REAL)ray.length * sum;
}

// The row and the bin, not whole, where a point at (dc, dr, ds) columns, rows, slices from the source projects.
DEVICE bool place_of(const double *view, Grid grid, double dc, double dr, double ds, double *row, double *bin) {
    if (view[12] != 0) {
        double x = dc * grid.pixel, y = -dr * grid.pixel;
        *bin = view[19] + view[17] * atan2(x * view[13] + y * view[14], x * view[15] + y * view[16]);
        *row = view[23] + view[18] * ds * grid.thickness / sqrt(x * x + y * y);
        return true;
    }
    double ahead = view[13] * dc + view[14] * dr + view[15] * ds;
    *bin = view[19] + (view[16] * dc + view[17] * dr + view[18] * ds) / ahead;
    *row = view[23] + (view[20] * dc + view[21] * dr + view[22] * ds) / ahead;
    return ahead > 1e-9 * (fabs(dc) + fabs(dr) + fabs(ds)) * view[27];
}

// out[item, row, column, slice] ← Σ over rays of their weight at the voxel times y[item, view, bin, row].
KERNEL(back_project, const REAL *y, REAL *out, const double *table, Int items, Int views, Int bins, Int rows, Int slices,
       Int height, Int width, double pixel, double thickness) {
    Int index = element();
    Int line = quotient(index, slices), slice = index - line * slices;
    Int sweep = quotient(line, width), column = line - sweep * width;
    Int item = quotient(sweep, height), lines = sweep - item * height;
    if (item >= items) return;
    Grid grid = {slices, height, width, pixel, thickness};
    REAL sum = 0;
    for (Int v = 0; v < views; v++) {
        const double *view = table + VIEW * v;
        const REAL *data = y + (item * views + v) * bins * rows;
        double d[3] = {(double)lines - view[25], (double)column - view[24], (double)slice - view[26]};
        double most = largest_of(fabs(d[0]), fabs(d[1]), fabs(d[2]));
        for (int axis = 0; axis < 3; axis++) {
            // Rays that pass within one voxel have nearly the direction of the voxel itself.
            if (fabs(d[axis]) + 1.5 < most) continue;
            double low_row = 1e300, high_row = -1e300, low_bin = 1e300, high_bin = -1e300;
            bool all = true, any = false;
            for (int corner = 0; corner < 4; corner++) {
                double p = corner & 1 ? 1 : -1, q = corner & 2 ? 1 : -1, row, bin;
                double dr = d[0] + (axis == 0 ? 0 : p), dc = d[1] + (axis == 0 ? p : axis == 1 ? 0 : q);
                double ds = d[2] + (axis == 2 ? 0 : q);
                bool seen = place_of(view, grid, dc, dr, ds, &row, &bin);
                all = all && seen;
                any = any || seen;
                low_row = row < low_row ? row : low_row, high_row = row > high_row ? row : high_row;
                low_bin = bin < low_bin ? bin : low_bin, high_bin = bin > high_bin ? bin : high_bin;
            }
            if (!any) continue;
            // Along arcs the extremes lie a little off the corners.
            double margin = view[12] != 0 ? 0.05 : 1e-6;
            if (!all) low_row = low_bin = 0, high_row = (double)rows, high_bin = (double)bins;
            low_row = ceil(low_row - margin), high_row = floor(high_row + margin);
            low_bin = ceil(low_bin - margin), high_bin = floor(high_bin + margin);
            Int from_row = low_row > 0 ? (low_row < (double)rows ? (Int)low_row : rows) : 0;
            Int to_row = high_row < (double)rows - 1 ? (high_row < 0 ? -1 : (Int)high_row) : rows - 1;
            Int from_bin = low_bin > 0 ? (low_bin < (double)bins ? (Int)low_bin : bins) : 0;
            Int to_bin = high_bin < (double)bins - 1 ? (high_bin < 0 ? -1 : (Int)high_bin) : bins - 1;
            double k = axis == 0 ? (double)lines : axis == 1 ? (double)column : (double)slice;
            double at_a = axis == 0 ? (double)column : (double)lines, at_b = axis == 2 ? (double)column : (double)slice;
            for (Int bin = from_bin; bin <= to_bin; bin++) {
                for (Int row = from_row; row <= to_row; row++) {
                    Ray ray = ray_to(view, grid, rows, bins, row, bin);
                    if (ray.axis != axis || (ray.forward ? !(k > ray.start) : !(k < ray.start))) continue;
                    double p = 1 - fabs(ray.a + k * ray.da - at_a), q = 1 - fabs(ray.b + k * ray.db - at_b);
                    if (p > 0 && q > 0) sum += (REAL)(p * q * ray.length) * data[bin * rows + row];
                }
            }
        }
    }
    out[index] = sum;
}
