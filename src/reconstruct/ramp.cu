// The filter of filtered back projection: two rows to a complex transform.

// grid[unit, k] ← bins k of rows 2·unit and 2·unit + 1, and zeros.
KERNEL(pack, const REAL *rows, REAL *grid, Int n, Int bins, Int length, Int count) {
    Int index = element();
    if (index >= n) return;
    Int unit = quotient(index >> 1, length), k = (index >> 1) - unit * length, row = 2 * unit + (index & 1);
    grid[index] = row < count && k < bins ? rows[row * bins + k] : 0;
}

// grid ← response(|f|) · grid.
KERNEL(filter, REAL *grid, const double *response, Int n, Int length) {
    Int index = element();
    if (index >= n) return;
    Int k = index - quotient(index, length) * length;
    REAL factor = (REAL)response[at_most(k, length - k)];
    grid[2 * index] *= factor;
    grid[2 * index + 1] *= factor;
}

KERNEL(unpack, const REAL *grid, REAL *rows, Int n, Int bins, Int length) {
    Int index = element();
    if (index >= n) return;
    Int row = quotient(index, bins), k = index - row * bins;
    rows[index] = grid[2 * ((row >> 1) * length + k) + (row & 1)];
}

// x[…, row, view, bin] ← rays[view, bin] · cosines[row, bin] · x.
KERNEL(weigh, REAL *x, const double *rays, const double *cosines, Int n, Int bins, Int views, Int rows) {
    Int index = element();
    if (index >= n) return;
    Int line = quotient(index, bins), bin = index - line * bins, above = quotient(line, views);
    Int view = line - above * views, row = above - quotient(above, rows) * rows;
    x[index] *= (REAL)(rays[view * bins + bin] * cosines[row * bins + bin]);
}
