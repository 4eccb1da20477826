#include "serve/errors.h"

#include "answer/json.h"

namespace fovea::serve {
namespace {

std::string_view ErrorType(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kDeadlineExceeded:
      return 408;
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
      return 503;
    default:
      return 500;
  }
}

}  // namespace

std::string ErrorBody(int status, std::string_view message, std::string_view code) {
  return answer::JsonText({{"error",
                            {{"message", message},
                             {"type", ErrorType(status)},
                             {"param", nullptr},
                             {"code", code.empty() ? answer::Json() : answer::Json(code)}}}});
}

HttpResponse ErrorResponse(int status, std::string_view message, std::string_view code) {
  HttpResponse response{.status = status, .body = ErrorBody(status, message, code)};
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (status == 429 || status == 503) response.headers.emplace_back("Retry-After", "1");
  return response;
}

HttpResponse ErrorResponse(const absl::Status& status) {
  const std::string_view code = absl::IsOutOfRange(status)  ? "context_length_exceeded"
                                : absl::IsCancelled(status) ? "cancelled"
                                                            : "";
  return ErrorResponse(HttpStatus(status.code()), ToStd(status.message()), code);
}

HttpResponse BodyErrorResponse(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return ErrorResponse(413, ToStd(status.message()));
  return ErrorResponse(status);
}

}  // namespace fovea::serve
