// Payloads narrower than their tensors: Q(x) is sent in the place of x.
//
// What is added up then are differences, y_i = x_i + sum over j of w_ij (Q(x_j) - Q(x_i)): rounding
// moves a little from one rank to another, and the sum over the ranks stays what it is where it
// would without it. With w_ii x_i + sum over j of w_ij Q(x_j) it would drift. The "partially
// quantized" strategy of arXiv:0907.0748, (Q2-G) in arXiv:1902.00340.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "plan/plan.h"

namespace bluefog {

/// Throws c10::TypeError, saying what is possible, unless tensor `index` can go as `payload`.
void check_payload(const at::Tensor& input, at::ScalarType payload, std::size_t index);

/// Throws c10::ValueError where this rank scales what it sends: the receivers' weights alone make
/// the differences.
void check_unscaled(const Plan& plan);

/// Q(x), packed as `input` is: rounded to nearest. To float8 what is beyond the largest finite
/// value goes as that one, infinities too: the cast itself would make them NaN or infinite, of
/// which there is no difference. To bfloat16, which has float32's range, they go as they are.
at::Tensor rounded(const at::Tensor& input, at::ScalarType payload);

/// The weights of x_i, of Q(x_i) and of the sources' Q(x_j), in this order of addition, in which no
/// sum on the way is larger than its terms where the weights are those of an average.
std::vector<double> difference_weights_of(const Plan& plan);

}  // namespace bluefog
