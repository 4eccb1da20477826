// Errors as OpenAI's API words them: {"error": {"message", "type", "param", "code"}} with a status.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "serve/http.h"

namespace fovea::serve {

// `code`: a word for programs, may be empty.
std::string ErrorBody(int status, std::string_view message, std::string_view code = "");
HttpResponse ErrorResponse(int status, std::string_view message, std::string_view code = "");

// InvalidArgument and OutOfRange → 400, PermissionDenied → 403, NotFound → 404, DeadlineExceeded →
// 408, FailedPrecondition → 409, ResourceExhausted → 429, Unavailable and Cancelled → 503, all
// others → 500.
HttpResponse ErrorResponse(const absl::Status& status);
// The same for what HttpPeer says of a body: ResourceExhausted → 413.
HttpResponse BodyErrorResponse(const absl::Status& status);

}  // namespace fovea::serve
