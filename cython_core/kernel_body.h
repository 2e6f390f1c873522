/* All kernels for one REAL; the including file defines REAL, REAL_IS_FLOAT, TYPE, ISA, FN and TARGET. */
#include "choose.h"
#include "gates.h"
#include "rows.h"
#include "sparse_rows.h"
#include "narrow_rows.h"
#include "egru.h"
#include "lif.h"
#include "delta.h"
#include "fixed.h"
#include "readout.h"
#include "adam.h"

#undef CHOOSE
#undef TOLD_APART
