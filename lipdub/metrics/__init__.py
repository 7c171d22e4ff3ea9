"""Metrics of a dub: the image metrics of Table 4.1 [4.1], and others that are usual in the field.

    psnr_masked, laplacian_variance, ring_jitter    pictures, inside a mask
    landmark_distance, mouth_opening, over_eyes     landmarks in iBUG order
    agreement, articulation, opening_range, silence_motion      curves of mouth opening against time
    silent_frames                                   audio

The perceptual metric is `losses.perceptual`, the expert's is `losses.expert_loss`. Undefined values (an empty mask, no
silence in the sound) are NaN, to be counted and left out of means; shapes that do not fit raise ValueError.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from torch import Tensor

from lipdub.faces.backend import LUMA

HIGH_PASS = 17  # frames of the moving mean that is subtracted from a curve: 0.7 s at 25 fps
LAG = 1  # largest shift in frames at which two curves are compared
FAR = 6  # smallest shift in frames that counts as chance
SHORTEST = 2 * FAR + LAG + 1  # frames that `agreement` needs
FEW = 5  # pairs of neighbouring frames below which motion is not measured
SILENT_DB = -30.0  # below the sound's loud parts (95th percentile of its blocks): a pause in a quiet room
SILENT_S = 0.1  # length of silence on either side of a silent frame
BLOCK_S = 0.02  # of the sound's level
FAINT_DB = -75.0  # of full scale: silence in any recording
FLAT = 1e-9  # opening (in eye distances) below which a mouth does not move at all
MOUTH = slice(48, 68)
STEADY = slice(17, 48)  # brows, nose, eyes, which a dub does not change
UPPER_LIP, LOWER_LIP = 62, 66  # middle of the inner lips
EYE_CORNERS = (36, 45)  # outer ones
PEAK = 255.0  # vL and jitter are given for grey levels 0..255, vL as in the thesis' table


def psnr_masked(fake: Tensor, real: Tensor, mask: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio inside the mask, averaged over the three colours.

        PSNR(f, g) = 20 log10( MAX_f / sqrt(MSE(f, g)) )                       (thesis 4.1, the second eq. 15)
        MSE(f, g)  = 1 / sum_ij M(i, j) * sum_ij M(i, j) ||f(i, j) - g(i, j)||^2        (eq. 16, checked)

    "We compared each channel in RGB space and average the final value": one PSNR per colour, then their mean.

    Args:
        fake: g, (N, 3, H, W).
        real: f, (N, 3, H, W).
        mask: M, (N, 1, H, W) in [0, 1].
        peak: MAX_f, the largest value a pixel can have: 1 here, 255 for grey levels; the result is the same.

    Returns:
        (N,) dB. Infinite where images agree, NaN where the mask is empty.
    """
    _check(fake, mask)
    if fake.shape != real.shape:
        raise ValueError(f"shapes differ: {tuple(fake.shape)} and {tuple(real.shape)}")
    error = (mask * (fake - real).square()).sum((2, 3)) / mask.sum((2, 3))  # (N, 3)
    return (20 * torch.log10(peak / error.sqrt())).mean(1)


def laplacian_variance(images: Tensor, mask: Tensor) -> Tensor:
    """Sharpness vL: variance of the Laplacian inside the mask [4.1].

        L = Sx Sx I + Sy Sy I,    vL = sum M (L - mean)^2 / sum M,    mean = sum M L / sum M

    S is the 3 x 3 Sobel filter divided by 8, which gives the slope in grey levels per pixel. The thesis does not say
    how its Sobel is scaled, so only values of this function are comparable. I is grey, 0..255, without smoothing, as in
    [4.1]. Edge pixels are replicated beyond the border.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        mask: M, (N, 1, H, W) in [0, 1].

    Returns:
        (N,) squared grey levels; larger is sharper. NaN where the mask is empty.
    """
    _check(images, mask)
    grey = _grey(images)
    across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).view(1, 1, 3, 3) / 8
    down = across.transpose(2, 3)
    laplacian = _filter(_filter(grey, across), across) + _filter(_filter(grey, down), down)
    area = mask.sum((1, 2, 3), keepdim=True)
    mean = (mask * laplacian).sum((1, 2, 3), keepdim=True) / area
    return ((mask * (laplacian - mean).square()).sum((1, 2, 3), keepdim=True) / area).flatten()


def ring_jitter(faces: Tensor, ring: Tensor) -> Tensor:
    """Flicker of the skin round the lips: mean change between neighbouring frames of an aligned face.

        J = 1 / (T - 1) sum_t [ sum_ij R(i, j) | I_t(i, j) - I_{t-1}(i, j) | / sum_ij R(i, j) ],   R = R_t R_{t-1}

    I is grey, 0..255. Real skin moves, and encoders add noise: compare the value with that of the real video.

    Args:
        faces: (T, 3, H, W) RGB in [0, 1], crops that follow the head.
        ring: R, (T, 1, H, W) in [0, 1]: mouth mask without the lips.

    Returns:
        Scalar, grey levels. NaN for fewer than two frames, or where every ring is empty.
    """
    _check(faces, ring)
    change = _grey(faces).diff(dim=0).abs()
    both = ring[1:] * ring[:-1]
    value = (both * change).sum((1, 2, 3)) / both.sum((1, 2, 3))
    return value.nanmean()


def mouth_opening(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Inner-lip opening (T,): `over_eyes` of the middles of the inner lips, 62 and 66."""
    return over_eyes(landmarks, UPPER_LIP, LOWER_LIP)


def over_eyes(landmarks: NDArray[np.floating], a: int, b: int) -> NDArray[np.float64]:
    """Distance of two landmarks over that of the outer eye corners.

        d_t = || p_a - p_b || / || p_36 - p_45 ||        (iBUG numbers from 0)

    Args:
        landmarks: (T, 68, 2), any pixels.
        a: number of a landmark.
        b: likewise.

    Returns:
        (T,). NaN where landmarks are.
    """
    _check_landmarks(landmarks)
    return _distance(landmarks, a, b) / _distance(landmarks, *EYE_CORNERS)


def landmark_distance(fake: NDArray[np.floating], real: NDArray[np.floating]) -> float:
    """LMD: mean distance of the mouth's landmarks from the real ones, in percent of the outer eye corners' distance.

        LMD = 100 / T sum_t [ 1/20 sum_{i=48..67} || (p_ti - c_t) - (q_ti - d_t) || / || q_t36 - q_t45 || ]

    c and d are the means of brows, nose and eyes (17 .. 47), so that a shift of the whole face does not count. Papers
    report pixels of crops of various sizes, which are not comparable.

    Args:
        fake: p, (T, 68, 2).
        real: q, same shape, of the same frames.

    Returns:
        Percent, 0 = equal. Frames with NaN in either are left out; NaN if none is left.
    """
    _check_landmarks(fake)
    if np.shape(fake) != np.shape(real):
        raise ValueError(f"shapes differ: {np.shape(fake)} and {np.shape(real)}")
    p, q = (points[:, MOUTH] - points[:, STEADY].mean(1, keepdims=True) for points in (fake, real))
    each = 100 * np.linalg.norm(p - q, axis=2).mean(1) / _distance(real, *EYE_CORNERS)
    known = each[np.isfinite(each)]
    return float(known.mean()) if known.size else float("nan")


def high_pass(curve: NDArray[np.floating]) -> NDArray[np.float64]:
    """A curve (T,) minus its moving mean over HIGH_PASS frames: keeps syllables, removes smiles and head turns."""
    values = np.asarray(curve, np.float64)
    slow: NDArray[np.float64] = uniform_filter1d(values, HIGH_PASS, mode="nearest")
    return values - slow


def pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson's correlation of two curves (T,); 0 if one is flat."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > FLAT**2 else 0.0


def agreement(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> tuple[float, float]:
    """Correlation of the high-passed openings of two mouths, and its z-score against chance.

        r = max over k in {-1, 0, 1} of  pearson(a_t, b_{t-k})
        z = (r - mean_s n_s) / std_s n_s,    n_s = pearson(a, b rolled by s),  s = 6 .. T - 6

    r is the best of three shifts and each n is not, so that unrelated mouths have r and z slightly above 0. Compare
    with a row of real mouths with another sound.

    Args:
        curve: (T,) openings, finite, one a frame.
        reference: (T,) likewise.

    Returns:
        r in [-1, 1] and z. A mouth that never moves has r = 0, z = 0; a reference that never moves gives NaN.

    Raises:
        ValueError: shapes that differ, fewer than SHORTEST frames, or values that are not finite.
    """
    _check_long_curves(curve, reference)
    a, b = high_pass(curve), high_pass(reference)
    if np.abs(b).max() < FLAT:
        return float("nan"), float("nan")
    r = max(
        pearson(a[max(0, k) : len(a) + min(0, k)], b[max(0, -k) : len(b) + min(0, -k)]) for k in range(-LAG, LAG + 1)
    )
    null = [pearson(a, np.roll(b, shift)) for shift in range(FAR, len(b) - FAR + 1)]
    spread = float(np.std(null))
    return r, (r - float(np.mean(null))) / spread if spread > FLAT else 0.0


def articulation(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Movement of a mouth over the reference's: ratio of the standard deviations of high-passed openings.

    Args:
        curve: (T,) openings, finite.
        reference: (T,) likewise.

    Returns:
        1 = as far; NaN where the reference never moves.
    """
    _check_long_curves(curve, reference)
    spread = float(np.std(high_pass(reference)))
    return float(np.std(high_pass(curve))) / spread if spread > FLAT else float("nan")


def opening_range(curve: NDArray[np.floating]) -> float:
    """Range of a mouth's openings: 95th minus 5th percentile, in percent of the eye distance.

    Unlike `articulation` it needs no reference: a mouth that does not move has about 0, and one that opens too far has
    more than any real one.

    Args:
        curve: (T,) openings in eye distances, finite.
    """
    if np.ndim(curve) != 1 or not np.size(curve):
        raise ValueError(f"want a curve (T,) with T >= 1, got {np.shape(curve)}")
    low, high = np.percentile(curve, [5, 95])
    return float(100 * (high - low))


def silence_motion(curve: NDArray[np.floating], silent: NDArray[np.bool_]) -> float:
    """Movement of the mouth in silence, in percent of its movement in speech.

        100 * mean_{t in S} | o_t - o_{t-1} | / mean_{t in V} | o_t - o_{t-1} |

    S are the t for which frames t and t - 1 are silent, V those for which neither is. The movement is relative to the
    same mouth's, so that a mouth that hardly moves has no advantage. 100 = pauses make no difference.

    Args:
        curve: o, (T,) openings, finite.
        silent: (T,), True where the sound is silent.

    Returns:
        Percent. NaN where S or V has fewer than FEW members, or the mouth is still in V.
    """
    check_curves(curve, silent)
    change = np.abs(np.diff(curve))
    quiet, loud = silent[1:] & silent[:-1], ~silent[1:] & ~silent[:-1]
    if min(quiet.sum(), loud.sum()) < FEW or change[loud].mean() < FLAT:
        return float("nan")
    return float(100 * change[quiet].mean() / change[loud].mean())


def silent_frames(waveform: NDArray[np.floating], sample_rate: int, times_s: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Frames that fall into a pause of the sound.

    Silent: every block of BLOCK_S within SILENT_S of the frame lies SILENT_DB or more below the 95th percentile of the
    blocks that are not faint. This is independent of the gate by which `lipdub sync` closes the mouth.

    Args:
        waveform: (n,) mono in [-1, 1]; before and after it there is silence.
        sample_rate: Hz.
        times_s: (T,) of the frames.

    Returns:
        (T,), True = silent.
    """
    step = round(BLOCK_S * sample_rate)
    blocks = np.pad(np.asarray(waveform, np.float64), (0, -len(waveform) % step)).reshape(-1, step)
    level = 10 * np.log10(np.square(blocks).mean(1) + 1e-12)
    audible = level[level > FAINT_DB]
    limit = max(float(np.percentile(audible, 95)) + SILENT_DB, FAINT_DB) if audible.size else np.inf
    loud = np.concatenate([[0], np.cumsum(level > limit)])  # number of loud blocks before each
    first = np.clip(np.floor((times_s - SILENT_S) / BLOCK_S), 0, len(level)).astype(int)
    last = np.clip(np.ceil((times_s + SILENT_S) / BLOCK_S), 0, len(level)).astype(int)
    return loud[last] == loud[first]


def _grey(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 1, H, W) in 0..255."""
    return PEAK * (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _distance(landmarks: NDArray[np.floating], a: int, b: int) -> NDArray[np.float64]:
    return np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1).astype(np.float64)


def _filter(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel)


def _check(images: Tensor, mask: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (N, 3, H, W), got {tuple(images.shape)}")
    if mask.shape != (images.shape[0], 1, *images.shape[2:]):
        raise ValueError(f"mask must be {(images.shape[0], 1, *images.shape[2:])}, got {tuple(mask.shape)}")


def _check_landmarks(landmarks: NDArray[np.floating]) -> None:
    if np.ndim(landmarks) != 3 or np.shape(landmarks)[1:] != (68, 2):
        raise ValueError(f"landmarks must be (T, 68, 2), got {np.shape(landmarks)}")


def check_curves(curve: NDArray[np.floating], other: NDArray[np.floating] | NDArray[np.bool_]) -> None:
    """Raise ValueError unless two curves, or a curve and the mask of its silent frames, are (T,) both."""
    if np.ndim(curve) != 1 or np.shape(curve) != np.shape(other):
        raise ValueError(
            f"curves, and a mask of silent frames, must be (T,) and alike, got {np.shape(curve)} and {np.shape(other)}"
        )


def _check_long_curves(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    check_curves(curve, reference)
    if len(curve) < SHORTEST:
        raise ValueError(f"curves need {SHORTEST} frames, got {len(curve)}")
    if not (np.isfinite(curve).all() and np.isfinite(reference).all()):
        raise ValueError("curves must be finite")
