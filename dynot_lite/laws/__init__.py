"""Laws with closed forms: Gaussians and mixtures.

Derivatives. Of points and means all functions have exact ones, and of covariances where those are definite: also where two laws
commute or coincide, and twice. What has none raises ValueError, when it is called or when the derivative is asked for.

=====================================  ============================================  ========================================
function                               covariances                                   the rest
=====================================  ============================================  ========================================
Gaussian.log_prob, sample, quadrature  none where singular                           exact
Affine                                 exact                                         matrix, offset: exact
w2_squared, geodesic                   of a singular one none, of the other exact    t: exact
geometric_mean                         of a singular one none, of the other exact
monge_map                              of a singular q none, of p exact              exact
fm_velocity, SchroedingerBridge.drift  exact, but none where Cov(X_t) is singular    cross_cov, t: as the covariances
fm_flow                                of a singular q none, of p exact              t: exact, but at 1 with a singular q none
fm_flow with a cross_cov               none                                          means: exact; cross_cov, t: none
fm_kinetic_energy                      of a singular one none, of the other exact    cross_cov: exact, beside a singular law none
entropic_plan, schroedinger_bridge     of a singular one none, of the other exact    epsilon, sigma: none
GaussianMixture.log_prob               none where singular                           weights: exact, where zero, too
GaussianMixture.sample                 none where singular                           weights: none
fm_velocity_mixture                    exact                                         weights, cross_cov, t: exact
fm_velocity_diracs                                                                   points, weights, t: exact
GaussianMixture.cdf                    none where one is zero                        weights: exact
GaussianMixture.quantile               none                                          none
fm_law                                 exact                                         cross_cov, t: exact
mccann_velocity                        of a singular q none, of p exact              t: exact
MixtureCoupling.velocity, law          exact                                         weights, cross_cov, t: exact
MixtureCoupling.product                exact                                         weights: exact
MixtureCoupling.sample                 none                                          none
=====================================  ============================================  ========================================
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(__name__, "linear_algebra", "gaussian", "mixtures", "coupled")
