r"""Balance of the signs of a network: of its activations over data, and of its weights.

With :math:`p_c` the share of +1 of channel c over samples and positions and :math:`m_c = 2p_c - 1`,
the figures of a layer's activations are

- ``share``, ``mean_sign``, ``mean_sign_var``: mean :math:`p_c`, mean :math:`|m_c|`, variance of
  :math:`m_c` between channels;
- ``entropy``, ``entropy_pooled``: mean :math:`h_2(p_c)` and :math:`h_2` of the mean share, in bits;
  the gap is imbalance between channels that the pooled figure hides;
- ``instance_std``: standard deviation over samples of the share of +1 of a sample;
- ``dead``: share of channels with :math:`p_c` below .01 or above .99;
- ``alive``, ``slope``: share of pre-activations within 1 of their threshold, and the mean of the
  gradient estimator;
- ``information``, ``information_plugin``, ``information_shuffled``: bits about the class in one
  unit, with and without the correction of Miller and Madow, and with shuffled classes;
- ``correlation``, ``effective_rank``, ``unique_codes``: mean :math:`|\rho|` between channels, the
  exponential of the entropy of the correlations' spectrum, and the share of different codes among
  the first 4096 samples;
- ``output_entropy``, ``output_shift``: entropy in bits of the integers that the next layer's signs
  make of these, and how far :math:`\sum_c w_c m_c` shifts them, in standard deviations (median
  over filters);

and those of its weights ``share``, ``mean_sign``, ``entropy``, ``entropy_pooled``, ``dead`` by
filter, ``quantisation_error`` of what is rounded, and ``latent_mean``, its mean by its standard
deviation. `Flips` counts the signs that change.
"""

from pbnn.balance.flips import Flips
from pbnn.balance.information import (
    entropy,
    histogram_entropy,
    mutual_information,
    shuffled_information,
)
from pbnn.balance.signs import SignStatistics
from pbnn.balance.watching import Balance, Watcher, evaluating, measure, watch, weights_of
from pbnn.balance.weights import quantisation_error, weight_balance

__all__ = [
    "Balance",
    "Flips",
    "SignStatistics",
    "Watcher",
    "entropy",
    "evaluating",
    "histogram_entropy",
    "measure",
    "mutual_information",
    "quantisation_error",
    "shuffled_information",
    "watch",
    "weight_balance",
    "weights_of",
]
