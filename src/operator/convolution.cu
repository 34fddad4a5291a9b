// Convolutions on a padded grid. A plane is a real image or a component of a complex one: plane k lies in an array of its
// own or, where they are `mixed`, in component k mod 2 of complex array k / 2, as on the grid.

DEVICE Int place(Int mixed, Int plane, Int point, Int points) {
    return mixed ? 2 * ((plane >> 1) * points + point) + (plane & 1) : plane * points + point;
}

// to[plane, i, j] ← factor · Σ from[plane, r, c] over the rows r listed for i and the columns c listed for j; 0 for planes
// beyond the last. A table of lists holds where each begins and where the last ends, then their members.
KERNEL(gather, const REAL *from, REAL *to, const double *rows, const double *columns, Int n, Int height, Int width,
       Int from_height, Int from_width, Int planes, Int from_mixed, Int to_mixed, double factor) {
    Int index = element();
    if (index >= n) return;
    Int points = height * width, plane = quotient(index, points), point = index - plane * points;
    Int i = quotient(point, width), j = point - i * width;
    const double *row = rows + height + 1, *column = columns + width + 1;
    REAL sum = 0;
    if (plane < planes)
        for (Int r = (Int)rows[i]; r < (Int)rows[i + 1]; r++)
            for (Int c = (Int)columns[j]; c < (Int)columns[j + 1]; c++) {
                Int at = (Int)row[r] * from_width + (Int)column[c];
                sum += from[place(from_mixed, plane, at, from_height * from_width)];
            }
    to[place(to_mixed, plane, point, points)] = (REAL)factor * sum;
}
