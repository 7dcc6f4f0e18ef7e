# frozen_string_literal: true

# Calls through mtlsctl's module, each case that comes as JSON on standard input once by Net::HTTP and once by Faraday,
# and prints what happened. Arguments: the module, the service. A case: { callee } and, to pose as somebody else, { cert,
# key } with file names or null for none.

require 'faraday'
require 'json'

file, service = ARGV
load file

MISSED = [SocketError, Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Timeout::Error, Faraday::TimeoutError].freeze

def pose(http, one)
  return unless one.key?('cert')

  http.cert = one['cert'] && OpenSSL::X509::Certificate.new(File.read(one['cert']))
  http.key = one['cert'] && OpenSSL::PKey.read(File.read(one['key']))
end

def told
  status, body = yield
  { status: status, body: body }
rescue StandardError => e
  cause = e.cause || e
  { error: "#{cause.class}: #{cause.message}", unreachable: MISSED.any? { |kind| cause.is_a?(kind) || e.is_a?(kind) } }
end

shown = JSON.parse($stdin.read).map do |one|
  release = Mtlsctl.service(service)
  by_net_http = told do
    http = release.http(one['callee'])
    pose(http, one)
    http.start { |started| started.get('/').then { |got| [got.code.to_i, got.body] } }
  end
  by_faraday = told do
    connection = release.faraday(one['callee'])
    if one.key?('cert')
      # The same, with one step more in the adapter's block.
      connection = Faraday.new(release.faraday_options(one['callee'])) do |builder|
        builder.adapter(:net_http) { |http| pose(release.prepare(http, one['callee']), one) }
      end
    end
    connection.get('/').then { |got| [got.status, got.body] }
  end
  [by_net_http, by_faraday]
end
puts JSON.generate(shown)
