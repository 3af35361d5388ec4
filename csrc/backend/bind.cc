// Python module bluefog_pg._C. Its stubs are bluefog_pg/_C.pyi.
#include <pybind11/chrono.h>
#include <torch/csrc/utils/pybind.h>

#include "backend/bind_edges.h"
#include "backend/bind_windows.h"
#include "backend/bluefog_backend.h"
#include "backend/gil.h"
#include "backend/work.h"
#include "base/error.h"
#include "device/combine_aten.h"

namespace py = pybind11;

namespace bluefog {
namespace {

using OptionsPtr = c10::intrusive_ptr<BluefogOptions>;
using StorePtr = c10::intrusive_ptr<c10d::Store>;

// Error kinds become the classes of bluefog_pg/errors.py; a usage error is a ValueError.
void raise(const Error& error) {
  const char* name = nullptr;
  switch (error.code()) {
    case ErrorCode::kUsage:
      return py::set_error(PyExc_ValueError, error.what());
    case ErrorCode::kMismatch:
      name = "MismatchError";
      break;
    case ErrorCode::kTimeout:
      name = "NeighborTimeoutError";
      break;
    case ErrorCode::kPeerLost:
      name = "PeerLostError";
      break;
    case ErrorCode::kAborted:
      name = "AbortedError";
      break;
    case ErrorCode::kSystem:
      name = "BluefogError";
      break;
  }
  py::set_error(py::module_::import("bluefog_pg.errors").attr(name), error.what());
}

// A Python object held by C++ code that may end without the GIL, or after Python (then it is left
// alone).
std::shared_ptr<py::object> hold(py::object object) {
  return {new py::object(std::move(object)), [](py::object* held) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            delete held;
          }};
}

// Makes a std::function that calls a Python one, on any thread.
template <typename Result, typename... Args>
std::function<Result(Args...)> callback(py::object function) {
  return [held = hold(std::move(function))](Args... args) {
    const py::gil_scoped_acquire gil;
    return (*held)(args...).template cast<Result>();
  };
}

std::pair<WorkPtr, Tensors> to_pair(BluefogBackend::Started started) {
  return {std::move(started.work), std::move(started.outputs)};
}

void bind_plan(py::module_& module) {
  py::class_<Plan, std::shared_ptr<Plan>>(module, "Plan")
      .def(py::init<int, int, double, std::vector<Edge>, std::vector<Edge>>(), py::arg("rank"),
           py::arg("size"), py::arg("self_weight"), py::arg("sources"), py::arg("destinations"))
      .def_property_readonly("rank", &Plan::rank)
      .def_property_readonly("size", &Plan::size)
      .def_property_readonly("self_weight", &Plan::self_weight)
      .def_property_readonly("sources", &Plan::sources)
      .def_property_readonly("destinations", &Plan::destinations)
      .def("__eq__", [](const Plan& self, const Plan& other) { return self == other; })
      .def("__repr__", [](const Plan& plan) { return "<Plan " + plan.describe() + ">"; });
}

void bind_options(py::module_& module, const py::object& base) {
  auto copy = [](const BluefogOptions& options) {
    return c10::make_intrusive<BluefogOptions>(options);
  };
  py::class_<BluefogOptions, OptionsPtr>(module, "BluefogOptions", base)
      .def(py::init([](const std::string& transport, bool host_collectives, bool own_communicator,
                       bool symmetric_memory, int communication_streams, bool high_priority,
                       int max_neighbors, c10::intrusive_ptr<c10d::Backend::Options> cuda) {
             if (communication_streams < 1) {
               fail(ErrorCode::kUsage, "communication_streams is ", communication_streams,
                    "; operations need at least 1 to end on");
             }
             if (max_neighbors < 0) {
               fail(ErrorCode::kUsage, "max_neighbors is ", max_neighbors,
                    "; it is at least 1, or 0 for any number");
             }
             auto options = c10::make_intrusive<BluefogOptions>(kBackendDefaultTimeout, transport);
             options->host_collectives = host_collectives;
             options->own_communicator = own_communicator;
             options->symmetric_memory = symmetric_memory;
             options->communication_streams = communication_streams;
             options->high_priority = high_priority;
             options->max_neighbors = max_neighbors;
             options->cuda = std::move(cuda);
             return options;
           }),
           py::kw_only(), py::arg("transport") = "auto", py::arg("host_collectives") = true,
           py::arg("own_communicator") = false, py::arg("symmetric_memory") = true,
           py::arg("communication_streams") = 1, py::arg("high_priority") = true,
           py::arg("max_neighbors") = 0, py::arg("cuda") = py::none())
      .def_readonly("transport", &BluefogOptions::transport)
      .def_readonly("host_collectives", &BluefogOptions::host_collectives)
      .def_readonly("own_communicator", &BluefogOptions::own_communicator)
      .def_readonly("symmetric_memory", &BluefogOptions::symmetric_memory)
      .def_readonly("communication_streams", &BluefogOptions::communication_streams)
      .def_readonly("high_priority", &BluefogOptions::high_priority)
      .def_readonly("max_neighbors", &BluefogOptions::max_neighbors)
      .def_readonly("cuda", &BluefogOptions::cuda)
      .def("__copy__", copy)
      .def("__deepcopy__",
           [copy](const BluefogOptions& options, const py::dict&) { return copy(options); });
}

void bind_backend(py::module_& module, const py::object& base) {
  py::class_<nccl::CudaLibrary, std::shared_ptr<nccl::CudaLibrary>>(module, "CudaLibrary");
  const auto no_gil = py::call_guard<py::gil_scoped_release>();
  py::class_<BluefogBackend, c10::intrusive_ptr<BluefogBackend>>(module, "BluefogBackend", base)
      .def(py::init([](StorePtr store, int rank, int size, OptionsPtr options, BackendPtr cpu,
                       py::object make_cuda, py::object load_nccl, py::object make_edges,
                       py::object make_child, py::object pin, py::object unpin) {
             Makers makers{
                 callback<BackendPtr>(std::move(make_cuda)),
                 callback<std::shared_ptr<nccl::CudaLibrary>>(std::move(load_nccl)),
                 callback<BackendPtr>(std::move(make_edges)),
                 callback<BackendPtr, StorePtr, int, int, OptionsPtr>(std::move(make_child)),
                 callback<void, std::uintptr_t, std::size_t>(std::move(pin)),
                 callback<void, std::uintptr_t>(std::move(unpin))};
             auto backend = c10::make_intrusive<BluefogBackend>(std::move(store), rank, size,
                                                                std::move(options), std::move(cpu),
                                                                std::move(makers));
             const GilReleased released;  // other ranks may be threads of this process
             backend->meetOnHost();
             return backend;
           }),
           py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("options"), py::arg("cpu"),
           py::arg("make_cuda"), py::arg("load_nccl"), py::arg("make_edges"), py::arg("make_child"),
           py::arg("pin"), py::arg("unpin"))
      .def(
          "neighbor_allreduce",
          [](BluefogBackend& self, Tensors inputs, std::optional<Tensors> outputs,
             std::shared_ptr<const Plan> plan, int64_t round, bool async_op,
             std::optional<at::ScalarType> payload_dtype) {
            return to_pair(self.neighborAllreduce(std::move(inputs), std::move(outputs),
                                                  std::move(plan),
                                                  {round, async_op, payload_dtype}));
          },
          py::arg("inputs"), py::arg("outputs"), py::arg("plan"), py::arg("round"),
          py::arg("async_op"), py::arg("payload_dtype") = py::none(), no_gil)
      .def_static("is_narrower", &device::is_narrower, py::arg("payload"), py::arg("own"))
      .def(
          "neighbor_allgather",
          [](BluefogBackend& self, const at::Tensor& input, std::optional<at::Tensor> out,
             std::shared_ptr<const Plan> plan, int64_t round, bool async_op) {
            return to_pair(
                self.neighborAllgather(input, std::move(out), std::move(plan), round, async_op));
          },
          py::arg("input"), py::arg("out"), py::arg("plan"), py::arg("round"), py::arg("async_op"),
          no_gil)
      .def("allocate_shared", &BluefogBackend::allocateShared, py::arg("size"), py::kw_only(),
           py::arg("dtype"), py::arg("device"), no_gil)
      .def("transport_of", &BluefogBackend::transportOf, py::arg("peer"), no_gil)
      .def("device_records", &BluefogBackend::deviceRecords, no_gil)
      .def_property_readonly("symmetric_memory_refusal", &BluefogBackend::symmetricMemoryRefusal)
      .def_property_readonly("bytes_sent", &BluefogBackend::bytesSent)
      .def_property_readonly("sequence", &BluefogBackend::sequence)
      .def_property_readonly("host_collectives", &BluefogBackend::hostCollectives)
      .def_property_readonly("options", &BluefogBackend::options)
      .def_property(
          "_state",
          [](const BluefogBackend& self) {
            return self.python_state ? *std::static_pointer_cast<py::object>(self.python_state)
                                     : py::none();
          },
          [](BluefogBackend& self, py::object state) {
            self.python_state = hold(std::move(state));
          })
      .def("comm_split_count", &BluefogBackend::splitCount)
      .def(
          "perform_nocolor_split", [](BluefogBackend&, const py::object&) {},
          "ProcessGroupNCCL's call for ranks that are in no part of a split; no communicator needs "
          "it here.");
}

}  // namespace
}  // namespace bluefog

PYBIND11_MODULE(_C, module) {
  const py::object backend = py::module_::import("torch._C._distributed_c10d").attr("Backend");
  // Not a static local of a Python type: the translator only keeps a function pointer.
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const bluefog::Error& known) {
      bluefog::raise(known);
    }
  });
  bluefog::bind_plan(module);
  bluefog::bind_options(module, backend.attr("Options"));
  bluefog::bind_backend(module, backend);
  bluefog::bind_windows(module);
}
