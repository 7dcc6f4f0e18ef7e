# encoding: utf-8
# frozen_string_literal: true

# Written by mtlsctl. This folder is one release and is never edited. See README.md of the runtime `ruby`.

require 'monitor'
require 'net/http'
require 'openssl'
require 'uri'

values = {
  service: 'cron',
  release: '3cd16059ad7f8e12',
  current: '/etc/mtlsctl/cron/current',
  certificate: '/etc/mtlsctl/cron/releases/3cd16059ad7f8e12/tls.crt',
  private_key: '/etc/mtlsctl/cron/releases/3cd16059ad7f8e12/tls.key',
  callees: [
    {
      name: 'bank',
      server_name: 'api.bank.example',
      servers_trust: '/etc/mtlsctl/cron/releases/3cd16059ad7f8e12/servers/bank.pem',
      endpoints: [
        { address: 'api.bank.example', port: 443 },
      ],
    },
    {
      name: 'shop',
      server_name: 'shop.example.net',
      servers_trust: nil, # Believed by the authorities of the system.
      endpoints: [
        { address: 'shop.example.net', port: 443 },
      ],
    },
  ],
}

# What all copies of this file in one program share: the live release of each service.
unless defined?(::Mtlsctl)
  module ::Mtlsctl
    @lock = Monitor.new
    @live = {}
    @told = {}

    class << self
      # The release that `current` names now, read whole; the one before it, and a line on stderr, when that fails.
      # Ask for it at each call: that costs one look at the symlink.
      def service(name)
        @lock.synchronize do
          held = @live.fetch(name) { raise KeyError, "no release of the service #{name} was loaded" }
          @live[name] = follow(held)
        end
      end

      def hold(release)
        @lock.synchronize { @live[release.service] ||= release }
        release
      end

      private

      def follow(held)
        problem = nil
        2.times do
          # Resolved once for each load: every path in the file found there is that of one immutable release.
          folder = File.realpath(held.current)
          return held if File.basename(folder) == held.name

          file = File.join(folder, 'mtls.rb')
          return eval(File.read(file, encoding: 'UTF-8'), TOPLEVEL_BINDING.dup, file)
        rescue StandardError, ScriptError => e
          problem = "mtlsctl: #{held.service} keeps release #{held.name}: #{e.message}"
        end
        warn(problem) unless @told[held.service] == problem
        @told[held.service] = problem
        held
      end
    end
  end
end

# A class of this file alone: another release brings its own.
release_class = Class.new do
  attr_reader :service, :name, :current

  # Reads every file once. Raises when anything is missing or does not fit, so that a release is live whole or not.
  def initialize(values)
    @service, @name, @current = values.values_at(:service, :release, :current)
    @paths = values.slice(:certificate, :private_key)
    @certificate, *@extra = certificates(values[:certificate])
    @key = OpenSSL::PKey.read(File.read(values[:private_key]), '')
    unless @certificate.check_private_key(@key)
      raise OpenSSL::X509::CertificateError, "#{values[:private_key]} does not belong to #{values[:certificate]}"
    end

    @callees = values[:callees].to_h { |one| [one[:name], one.merge(store: store(one[:servers_trust])).freeze] }.freeze
    freeze
  end

  # Yields a started Net::HTTP to the callee: the first of its endpoints that can be reached.
  def start(callee)
    connection = nil
    failure = nil
    found(callee)[:endpoints].each do |endpoint|
      connection = http(callee, endpoint).start
      break
    rescue SystemCallError, SocketError, Net::OpenTimeout => e
      failure = e
    end
    raise failure if connection.nil?

    begin
      yield connection
    ensure
      connection.finish if connection.started?
    end
  end

  # A Net::HTTP, not started yet. Proxies of the environment are passed by.
  def http(callee, endpoint = found(callee)[:endpoints].first)
    connection = Net::HTTP.new(found(callee)[:server_name], endpoint[:port], nil)
    prepare(connection, callee, endpoint)
  end

  # What Net::HTTP.start takes behind the name, the port and nil for no proxy.
  def http_options(callee, endpoint = found(callee)[:endpoints].first)
    {
      use_ssl: true,
      ipaddr: endpoint[:address], # The connection goes there; the name is sent, and checked against the certificate.
      cert_store: found(callee)[:store], # Exactly the callee's anchors. Beside a `ca_file` the system's would count.
      cert: @certificate,
      key: @key,
      extra_chain_cert: @extra.empty? ? nil : @extra,
      verify_mode: OpenSSL::SSL::VERIFY_PEER,
      verify_hostname: true,
      min_version: OpenSSL::SSL::TLS1_2_VERSION,
    }
  end

  # A Faraday connection by Net::HTTP. It follows new releases by itself, so it can be kept.
  def faraday(callee, options = {})
    require 'faraday'
    service = @service
    connection = Faraday.new(faraday_options(callee).merge(options)) do |builder|
      yield builder if block_given?
      builder.adapter(:net_http) { |http| Mtlsctl.service(service).prepare(http, callee) }
    end
    connection.proxy = nil
    connection
  end

  # What Faraday.new takes. Any other adapter than Net::HTTP needs a DNS that knows the callee's name.
  def faraday_options(callee)
    options = http_options(callee)
    ssl = { verify: true, client_cert: options[:cert], client_key: options[:key] }
    { url: url(callee), ssl: ssl.merge(options.slice(:cert_store, :verify_mode, :min_version)) }
  end

  # Makes a Net::HTTP that is made for the callee's name and port safe to start.
  def prepare(connection, callee, endpoint = nil)
    endpoint ||= found(callee)[:endpoints].select { |one| one[:port] == connection.port }.sample
    raise ArgumentError, "#{callee} has no endpoint at port #{connection.port}" if endpoint.nil?

    if connection.address != found(callee)[:server_name]
      raise ArgumentError, "the certificate of #{callee} is for #{found(callee)[:server_name]}"
    end

    connection.proxy_from_env = false
    connection.proxy_address = nil
    http_options(callee, endpoint).each do |option, value|
      connection.public_send("#{option}=", value) if connection.respond_to?("#{option}=")
    end
    connection
  end

  # https://<name>:<port><path> of the callee.
  def url(callee, path = '/')
    name = found(callee)[:server_name]
    host = name.include?(':') ? "[#{name}]" : name
    URI.join("https://#{host}:#{found(callee)[:endpoints].first[:port]}", path).to_s
  end

  # Where the callee's instances are: a list of { address:, port: }.
  def endpoints(callee)
    found(callee)[:endpoints].map(&:dup)
  end

  # The files, for a library that takes paths.
  def paths(callee)
    @paths.merge(servers_trust: found(callee)[:servers_trust])
  end

  def inspect
    "#<Mtlsctl release #{@name} of #{@service}>"
  end

  private

  def found(callee)
    @callees.fetch(callee) { raise KeyError, "#{@service} has no callee #{callee.inspect} in release #{@name}" }
  end

  def certificates(file)
    blocks = File.read(file).scan(/-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/m)
    raise OpenSSL::X509::CertificateError, "no certificate in #{file}" if blocks.empty?

    blocks.map { |one| OpenSSL::X509::Certificate.new(one) }
  end

  def store(file)
    return OpenSSL::X509::Store.new.tap(&:set_default_paths) if file.nil?

    certificates(file).each_with_object(OpenSSL::X509::Store.new) { |one, into| into.add_cert(one) }
  end
end

Mtlsctl.hold(release_class.new(values))
