"""Networks, one training loop, and the losses of flow matching and mean flow.

Derivatives. "None": the result has no graph. Of labels and other integers there are none.

====================================  ===================================  ======================================
function                              points, times                        parameters of the network
====================================  ===================================  ======================================
flow_matching.loss, FlowMatching      exact                                exact
mean_flow.loss, MeanFlow              as if the target were a constant     as if the target were a constant
VelocityNetwork, MeanVelocityNetwork  exact                                exact
UNet, MeanUNet                        exact                                exact
Classifier                            exact                                exact
guided                                exact; scale: refused (ValueError)   exact
change_path, score                    x: exact; t: refused (ValueError)    exact
Standardize                           exact; of fit: refused (ValueError)  none: its two numbers are buffers
flow_matching.sample, reflow          none                                 none
mean_flow.sample, sample_sde          none                                 none
training.fit, classifier.fit          none                                 none, of the averaged network returned
====================================  ===================================  ======================================

A flow that is to be differentiated is :func:`dynot_lite.paths.flows.integrate`.
"""

from dynot_lite._base.rooms import lazily

__getattr__ = lazily(
    __name__, "networks", "unet", "training", "classifier", "flow_matching", "mean_flow", "fields", "standardize"
)
