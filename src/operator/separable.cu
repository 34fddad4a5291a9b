// y[o, i, k] = Σⱼ Mᵢⱼ x[o, j, k]. The table holds where each row of M begins and where the last ends, then column and value
// of every entry.
KERNEL(along_axis, const REAL *x, REAL *y, const double *table, Int n, Int rows, Int columns, Int inner) {
    Int index = element();
    if (index >= n) return;
    Int line = quotient(index, inner), outer = quotient(line, rows), row = line - outer * rows;
    const double *entries = table + rows + 1;
    const REAL *from = x + outer * columns * inner + index - line * inner;
    REAL sum = 0;
    for (Int e = (Int)table[row]; e < (Int)table[row + 1]; e++)
        sum += (REAL)entries[2 * e + 1] * from[(Int)entries[2 * e] * inner];
    y[index] = sum;
}
