/* What the fixed-point kernels need to know of one network's formats; evsim/plan.py fills it. */
#ifndef EVSIM_FIXED_FORMAT_H
#define EVSIM_FIXED_FORMAT_H

typedef struct {
    double scale, step;            /* activations are multiples of step = 1 / scale, */
    double low, high;              /* from low to high steps */
    double logistic_reach;         /* from so many steps on, up or down, a function no longer changes */
    double hyperbolic_tangent_reach;
    const double *logistic;        /* their values at -reach to +reach steps; these point at 0 steps */
    const double *hyperbolic_tangent;
} FixedFormat;

#endif
