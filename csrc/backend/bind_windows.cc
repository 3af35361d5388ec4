#include "backend/bind_windows.h"

#include <algorithm>
#include <utility>

#include "backend/bind_edges.h"
#include "backend/bluefog_backend.h"
#include "backend/gil.h"
#include "backend/schema.h"
#include "backend/windows.h"

namespace py = pybind11;

namespace bluefog {
namespace {

using Edges = TensorWindow::Edges;
using MaybeHandle = std::optional<TensorWindow::Handle>;

DType dtype_of_window(const at::Tensor& tensor, const std::string& name) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kInt:
      return DType::kInt32;
    case at::kLong:
      return DType::kInt64;
    default:
      TORCH_CHECK_TYPE(false, "window '", name, "' cannot hold ", dtype_name(tensor.scalar_type()),
                       "; it can hold float16, bfloat16, float32, float64, int32 and int64");
  }
}

// Whether a window can have this value; as make_window checks it.
void check_tensor(const at::Tensor& tensor, const std::string& window) {
  TensorWindow::check(tensor, window);
  dtype_of_window(tensor, window);
}

py::dict to_dict(const window::Statistics& all) {
  py::dict in, out;
  for (const auto& edge : all.in) {
    py::dict counts;
    counts["records"] = edge.records;
    counts["gets"] = edge.gets;
    counts["staleness"] = edge.staleness;
    in[py::int_(edge.rank)] = counts;
  }
  for (const auto& edge : all.out) {
    py::dict counts;
    counts["puts"] = edge.puts;
    counts["accumulates"] = edge.accumulates;
    out[py::int_(edge.rank)] = counts;
  }
  py::dict result;
  result["in"] = in;
  result["out"] = out;
  result["waited"] = all.waited;
  return result;
}

void bind_handle(py::module_& module) {
  py::class_<TensorWindow::Handle>(module, "WindowHandle")
      .def(
          "wait", [](const TensorWindow::Handle& handle) { handle.get(); },
          py::call_guard<py::gil_scoped_release>())
      .def("done", [](const TensorWindow::Handle& handle) {
        return handle.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
      });
}

// The last reference may go where other threads wait for Python's lock, or need it.
std::shared_ptr<TensorWindow> without_gil(TensorWindow* window) {
  return {window, [](TensorWindow* gone) {
            const GilReleased released;
            delete gone;
          }};
}

// Collective.
std::shared_ptr<TensorWindow> make_window(BluefogBackend& backend, const std::string& name,
                                          const at::Tensor& tensor, std::vector<int> in_neighbors,
                                          std::vector<int> out_neighbors, bool zero_init,
                                          bool readable) {
  check_tensor(tensor, name);
  std::sort(in_neighbors.begin(), in_neighbors.end());
  std::sort(out_neighbors.begin(), out_neighbors.end());
  window::Spec spec{name,
                    backend.getRank(),
                    {backend.getSize(), dtype_of_window(tensor, name),
                     static_cast<std::size_t>(tensor.nbytes()), readable},
                    std::move(in_neighbors),
                    std::move(out_neighbors),
                    zero_init,
                    {}};
  auto window = backend.makeWindow(std::move(spec), tensor);
  return without_gil(new TensorWindow(tensor, std::move(window), backend.windowQueue(),
                                      backend.options()->timeout));
}

}  // namespace

void bind_windows(py::module_& module) {
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  bind_handle(module);
  py::class_<BluefogBackend, c10::intrusive_ptr<BluefogBackend>>(module.attr("BluefogBackend"))
      .def("make_window", &make_window, py::arg("name"), py::arg("tensor"), py::arg("in_neighbors"),
           py::arg("out_neighbors"), py::kw_only(), py::arg("zero_init"), py::arg("readable"),
           no_gil);
  auto send = [](window::Sending kind) {
    return [kind](TensorWindow& self, const at::Tensor& tensor, const Edges& destinations,
                  double self_weight, bool require_mutex, bool async_op) -> MaybeHandle {
      return self.send(kind, tensor, destinations, self_weight, {require_mutex, async_op});
    };
  };
  py::class_<TensorWindow, std::shared_ptr<TensorWindow>>(module, "TensorWindow")
      .def("put", send(window::Sending::kPut), py::arg("tensor"), py::arg("destinations"),
           py::arg("self_weight"), py::arg("require_mutex"), py::arg("async_op"), no_gil)
      .def("accumulate", send(window::Sending::kAccumulate), py::arg("tensor"),
           py::arg("destinations"), py::arg("self_weight"), py::arg("require_mutex"),
           py::arg("async_op"), no_gil)
      .def(
          "get",
          [](TensorWindow& self, const Edges& sources, bool require_mutex,
             bool async_op) -> MaybeHandle { return self.get(sources, {require_mutex, async_op}); },
          py::arg("sources"), py::arg("require_mutex"), py::arg("async_op"), no_gil)
      .def(
          "update",
          [](TensorWindow& self, double self_weight, const Edges& sources, bool reset, bool clone,
             bool require_mutex) {
            return self.update(self_weight, sources, reset, clone, require_mutex);
          },
          py::arg("self_weight"), py::arg("sources"), py::arg("reset"), py::arg("clone"),
          py::arg("require_mutex"), no_gil)
      .def("value_of", &TensorWindow::value_of, py::arg("rank"), no_gil)
      .def("outstanding", &TensorWindow::outstanding, py::arg("rank"), no_gil)
      .def(
          "versions",
          [](TensorWindow& self) {
            self.drain();
            return self.window().versions();
          },
          no_gil)
      .def("lock", &TensorWindow::lock, py::arg("as_owner"), py::arg("ranks"), no_gil)
      .def("unlock", &TensorWindow::unlock, py::arg("as_owner"), py::arg("ranks"), no_gil)
      .def("flush", &TensorWindow::flush, no_gil)
      .def("free", &TensorWindow::free, no_gil)
      .def("close", &TensorWindow::close, no_gil)
      .def(
          "p_of",
          [](TensorWindow& self, int rank) {
            self.drain();
            return self.window().p_of(rank);
          },
          py::arg("rank"), no_gil)
      .def(
          "carry_p", [](TensorWindow& self, bool on) { self.window().carry_p(on); }, py::arg("on"))
      .def("statistics",
           [](TensorWindow& self) {
             window::Statistics all;
             {
               const GilReleased released;
               self.drain();
               all = self.window().statistics();
             }
             return to_dict(all);
           })
      .def_property(
          "p",
          [](TensorWindow& self) {
            const GilReleased released;
            self.drain();
            return self.window().p();
          },
          [](TensorWindow& self, double p) {
            const GilReleased released;
            self.drain();
            self.window().set_p(p);
          })
      .def(
          "is_lost", [](TensorWindow& self, int rank) { return self.window().lost(rank); },
          py::arg("rank"), no_gil)
      .def_property_readonly("nbytes",
                             [](TensorWindow& self) {
                               const GilReleased released;  // a window that closes may need it
                               return self.window().nbytes();
                             })
      .def_property_readonly("memory",
                             [](TensorWindow& self) { return self.window().spec().device.memory; })
      .def_static("check", &check_tensor, py::arg("tensor"), py::arg("window"))
      .def_property_readonly("closed", [](TensorWindow& self) { return self.window().closed(); })
      .def_property_readonly("tensor", &TensorWindow::tensor);
}

}  // namespace bluefog
