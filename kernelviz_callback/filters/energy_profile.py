"""The energy profile of a layer: how strongly its filters use each principal component of its data.

Trained first layers have the same profile for all random starts, widths and architectures, and even
for random labels. For a linear network, gradient descent gives a known profile with one free
parameter, the training time ``tau``. So the profile tells how far a layer has adapted to the data.

Source: Chowers & Weiss, "What do CNNs learn in the first layer and why? A linear systems
perspective", ICML 2023 (PMLR 202:6115).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kernelviz_callback.filters.patches import Patches

# With fewer components, random filters often fit the expected profile as well as trained filters.
LEAST_COMPONENTS = 8
# Share of random layers whose fit is better than `Profile.chance`.
CHANCE_RATE = 0.05
_TAUS = 128  # values of tau that are tried, evenly spaced in their logarithm
_MOST_ADAPTED = 10.0  # tau times the variance of the weakest component at the last value
_DRAWS = 400
_SEED = 5
# Components with a smaller share of the largest variance are rounding errors.
_LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class Profile:
    """The energy profile of a layer and the expected profile that fits it best.

    Attributes:
        energy: Root mean square of ``w . u`` over the filters, for each principal component u of
            the patches, the strongest component first. Shape (D,), float64, in units of the
            weights.
        expected: The profile of a linear network, scaled to ``energy`` by least squares. Shape
            (D,), float64.
        learned: Correlation of the two, in [-1, 1]. Trained layers have 0.9 to 0.96 (Chowers &
            Weiss, 2023). NaN if there are fewer than 8 components, or if the filters are not
            finite.
        chance: The value of ``learned`` that 95 % of the layers of random filters do not exceed.
        whitening: Mean of ``1 - exp(-tau variance)`` over the components, in [0, 1]: 0 if the
            layer follows the data's own spectrum, 1 if it evens it out completely.
    """

    energy: Tensor
    expected: Tensor
    learned: float
    chance: float
    whitening: float


def energy_profile(weights: Tensor, patches: Patches) -> Profile:
    """Compare a layer with what its data asks of it.

    ``learned`` near 1 means that the layer has adapted to the statistics of its data. A value up to
    ``chance`` means that it is as far from that as a random layer. It does not mean that the
    network does not learn: deep networks on top of a random first layer lose little.

    Args:
        weights: Filters, shape (N, C, ...), floating point, not modified. Filters with NaN or
            infinite weights are left out.
        patches: Patches that the layer reads. The patches of all groups are taken together.

    Raises:
        ValueError: If the filters do not fit the patches.

    Example:
        >>> images = torch.randn(2000, 9).cumsum(1)  # neighbours are correlated
        >>> patches = Patches(images.mean(0)[None], images.T.cov()[None], images[None], 2000)
        >>> energy_profile(torch.randn(64, 1, 3, 3), patches).energy.shape
        torch.Size([9])
    """
    if weights[0].numel() != patches.mean.shape[1]:
        raise ValueError(
            f"filters of shape {tuple(weights.shape)} do not read patches of "
            f"{patches.mean.shape[1]} numbers"
        )
    components = patches.components
    rows = weights.detach().to(components.directions.device, torch.float64).flatten(1)
    rows = rows[rows.isfinite().all(1)]
    energy = (rows @ components.directions).square().mean(0).sqrt()
    taus = _taus(components.variances)
    curves = _expected(components.variances, taus)
    fits = _correlations(energy[None], curves)[0]
    best = int(fits.nan_to_num(-2.0).argmax())
    curve = curves[best]
    return Profile(
        energy=energy,
        expected=curve * (energy @ curve) / (curve @ curve),
        learned=fits[best].item() if len(energy) >= LEAST_COMPONENTS else float("nan"),
        chance=_chance(len(weights), tuple(components.variances.tolist())),
        whitening=-torch.expm1(-taus[best] * components.variances).mean().item(),
    )


def expected_profile(patches: Patches, tau: float) -> Tensor:
    """Return the energy profile that gradient descent gives the first layer of a linear network.

    Args:
        patches: Patches that the layer reads.
        tau: Training time, positive, in units of one over the variance of the patches. With a small
            ``tau`` the profile is proportional to the standard deviation of the components; with a
            large one, to its inverse.

    Returns:
        ``(1 - exp(-tau v)) / sqrt(v)`` for the variance v of each principal component, the
        strongest first; 0 for components without variance. Shape (D,), float64.

    Source: Chowers & Weiss, ICML 2023, section 4.

    Example:
        >>> covariance = torch.diag(torch.tensor([4.0, 1.0]))[None]
        >>> patches = Patches(torch.zeros(1, 2), covariance, torch.zeros(1, 1, 2), 1)
        >>> [round(x, 3) for x in expected_profile(patches, tau=1e6).tolist()]
        [0.5, 1.0]
    """
    variances = patches.components.variances
    return _expected(variances, torch.tensor([tau], dtype=torch.float64, device=variances.device))[
        0
    ]


def _taus(variances: Tensor) -> Tensor:
    """Return the values of tau to try: from nothing adapted to everything adapted."""
    largest = variances[0].clamp(min=torch.finfo(torch.float64).tiny)
    weakest = variances[variances > _LEAST_SHARE * largest][-1:]
    last = _MOST_ADAPTED / (weakest if len(weakest) else largest[None])
    share = torch.linspace(0, 1, _TAUS, dtype=torch.float64, device=variances.device)
    first = 1e-3 / largest
    return first * (last / first) ** share


def _expected(variances: Tensor, taus: Tensor) -> Tensor:
    """Return the expected profile for each tau, shape (taus, D)."""
    deviations = variances.sqrt()
    floor = deviations[0] * _LEAST_SHARE**0.5
    profile = -torch.expm1(-taus[:, None] * variances) / deviations.clamp(min=floor)
    return torch.where(deviations > floor, profile, 0)


def _correlations(profiles: Tensor, curves: Tensor) -> Tensor:
    """Return Pearson's correlation of each profile with each curve."""
    each = [x - x.mean(1, keepdim=True) for x in (profiles, curves)]
    profiles, curves = (x / x.norm(dim=1, keepdim=True) for x in each)
    return profiles @ curves.T


@lru_cache(maxsize=16)
def _chance(filters: int, variances: tuple[float, ...]) -> float:
    """Return the fit that random Gaussian filters reach with the probability `CHANCE_RATE`.

    The components are orthogonal, so the energies of random filters are independent: each is a mean
    of squares of standard normal numbers.
    """
    generator = torch.Generator(device="cpu").manual_seed(_SEED)
    given = torch.tensor(variances, dtype=torch.float64, device="cpu")
    freedom = torch.full((_DRAWS, len(variances)), filters / 2, dtype=torch.float64, device="cpu")
    energies = torch._standard_gamma(freedom, generator=generator).sqrt()
    fits = _correlations(energies, _expected(given, _taus(given))).amax(1)
    return fits.quantile(1 - CHANCE_RATE).item()
