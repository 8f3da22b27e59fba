# The server in a container: see "In a container" in docs/server.md.
FROM python:3.13-slim

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt '.[server,clickhouse]' && rm -rf /src

# The store and the hashes of the tokens.
RUN useradd --create-home --home-dir /data otel-metadata
USER otel-metadata
WORKDIR /data
VOLUME /data

EXPOSE 4318 4317
ENTRYPOINT ["otel-metadata"]
# Every address of a container is one of a network, so calls need a token.
CMD ["serve", "--host", "0.0.0.0"]
