// The updates of SIRT.

// out ← (y − out)/rows, 0 where a row is empty; one sum: Σ (y − out)².
KERNEL(misfit, const REAL *y, const REAL *rows, REAL *out, Int items, Int size, Int parts, double *partial) {
    Part p = part_of(size, parts);
    double sum = 0;
    for (Int i = p.begin + threadIdx.x; i < p.end; i += BLOCK) {
        REAL off = y[i] - out[i], row = rows[i - p.item * size];
        sum += (double)(off * off);
        out[i] = row > 0 ? off / row : 0;
    }
    give(partial, 0, items, parts, p, sum);
}

// out ← max(lower, out + ω slope/columns), 0 added where a column is empty.
KERNEL(update, const REAL *slope, const REAL *columns, REAL *out, Int n, Int period, double omega, double lower) {
    Int i = element();
    if (i >= n) return;
    REAL column = columns[i - quotient(i, period) * period];
    REAL change = column > 0 ? (REAL)omega * slope[i] / column : 0;
    out[i] = largest(out[i] + change, (REAL)lower);
}
