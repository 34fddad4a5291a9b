// Forward differences along axes, their adjoint and AᴴA. The table holds length, distance of neighbours and weight of
// each axis; `item` is the number of elements of the array.

// y[item, axis, i]
KERNEL(gradient, const REAL *x, REAL *y, const double *table, Int n, Int item, Int axes) {
    Int index = element();
    if (index >= n) return;
    Int component = quotient(index, item), i = index - component * item;
    Int batch = quotient(component, axes), axis = component - batch * axes;
    Int length = (Int)table[3 * axis], stride = (Int)table[3 * axis + 1];
    Int place = quotient(i, stride);
    place -= quotient(place, length) * length;
    const REAL *at = x + batch * item + i;
    y[index] = place + 1 < length ? (REAL)table[3 * axis + 2] * (at[stride] - at[0]) : 0;
}

DEVICE REAL divergence_at(const REAL *y, const double *table, Int index, Int item, Int axes) {
    Int batch = quotient(index, item), i = index - batch * item;
    REAL sum = 0;
    for (Int axis = 0; axis < axes; axis++) {
        Int length = (Int)table[3 * axis], stride = (Int)table[3 * axis + 1];
        Int place = quotient(i, stride);
        place -= quotient(place, length) * length;
        const REAL *at = y + (batch * axes + axis) * item + i;
        REAL weight = (REAL)table[3 * axis + 2];
        if (place + 1 < length) sum -= weight * at[0];
        if (place > 0) sum += weight * at[-stride];
    }
    return sum;
}

KERNEL(divergence, const REAL *y, REAL *x, const double *table, Int n, Int item, Int axes) {
    Int index = element();
    if (index < n) x[index] = divergence_at(y, table, index, item, axes);
}

KERNEL(add_divergence, const REAL *y, REAL *x, const double *table, Int n, Int item, Int axes) {
    Int index = element();
    if (index < n) x[index] += divergence_at(y, table, index, item, axes);
}

KERNEL(laplacian, const REAL *x, REAL *out, const double *table, Int n, Int item, Int axes) {
    Int index = element();
    if (index >= n) return;
    Int batch = quotient(index, item), i = index - batch * item;
    const REAL *at = x + index;
    REAL sum = 0;
    for (Int axis = 0; axis < axes; axis++) {
        Int length = (Int)table[3 * axis], stride = (Int)table[3 * axis + 1];
        Int place = quotient(i, stride);
        place -= quotient(place, length) * length;
        REAL weight = (REAL)(table[3 * axis + 2] * table[3 * axis + 2]);
        if (place + 1 < length) sum += weight * (at[0] - at[stride]);
        if (place > 0) sum += weight * (at[0] - at[-stride]);
    }
    out[index] = sum;
}
